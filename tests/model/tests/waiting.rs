//! Plans through their schedules, and whether errors in the engine are found.

use libtest_mimic::{Arguments, Trial};
use mqns_model::machine::explore::Mode;
use mqns_model::mutants::{self, MUTANTS};
use mqns_model::world::{Plan, check, explain, plans};

fn report(name: &str, plan: &Plan, mode: Mode) -> Result<(), libtest_mimic::Failed> {
    let began = std::time::Instant::now();
    match check(plan, mode) {
        Ok(found) => {
            let seconds = began.elapsed().as_secs_f32();
            println!(
                "{name}: {} schedules, killed in {}, lock's owner unannounced in {}, wake swallowed in {}; {seconds:.1} s",
                found.schedules, found.killed, found.unannounced, found.swallowed
            );
            Ok(())
        }
        Err(failure) => Err(explain(plan, &failure).into()),
    }
}

/// An error that is not found is a fault of the plans.
fn hunt(number: usize) -> Result<(), libtest_mimic::Failed> {
    let (name, where_found) = MUTANTS[number];
    let mut schedules = 0;
    for plan in plans::small().iter().filter(|plan| where_found.contains(&plan.name)) {
        mutants::switch(Some(number));
        let found = check(plan, Mode::Exhaustive { preemptions: plan.preemptions.max(2) });
        mutants::switch(None);
        match found {
            Ok(summary) => schedules += summary.schedules,
            Err(failure) => {
                let what = failure.what.lines().next().unwrap_or_default();
                println!("{name}: found in \"{}\" after {} schedules: {what}", plan.name, failure.schedule);
                return Ok(());
            }
        }
    }
    Err(format!("{name}: not found in {schedules} schedules of {where_found:?}").into())
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    let args = Arguments::from_args();
    let more = number("MQNS_MODEL_PREEMPTIONS", 0) as u32;
    let schedules = number("MQNS_MODEL_SCHEDULES", 1000);
    let mut trials = Vec::new();
    for plan in plans::small() {
        let name = format!("every_schedule::{}", plan.name);
        let preemptions = plan.preemptions + more;
        trials.push(Trial::test(name.clone(), move || report(&name, &plan, Mode::Exhaustive { preemptions })));
    }
    for plan in plans::large() {
        let seed = number("MQNS_MODEL_SEED", 1) as u64;
        let (random, pct) = (format!("random::{}", plan.name), format!("pct::{}", plan.name));
        let other = plan.clone();
        trials.push(Trial::test(random.clone(), move || report(&random, &plan, Mode::Random { schedules, seed })));
        trials.push(Trial::test(pct.clone(), move || report(&pct, &other, Mode::Pct { schedules, depth: 4, seed })));
    }
    for (number, (name, _)) in MUTANTS.iter().enumerate() {
        trials.push(Trial::test(format!("error::{name}"), move || hunt(number)));
    }
    libtest_mimic::run(&args, trials).exit();
}
