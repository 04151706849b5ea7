//! Plans through their schedules, and whether errors in the engine are found.

use libtest_mimic::{Arguments, Trial};
use mqns_model::machine::explore::Mode;
use mqns_model::mutants::{self, MUTANTS};
use mqns_model::world::{Failure, Summary, accounts, check, explain, plans};

type Check = Box<dyn Fn(Mode) -> Result<Summary, Failure> + Send>;

/// A plan by its name, how many preemptions it is searched with, and its run.
fn small() -> Vec<(&'static str, u32, Check)> {
    let engine = plans::small().into_iter().map(|plan| {
        let (name, preemptions) = (plan.name, plan.preemptions);
        (name, preemptions, Box::new(move |mode| check(&plan, mode)) as Check)
    });
    let ledger = accounts::small().into_iter().map(|plan| {
        let (name, preemptions) = (plan.name, plan.preemptions);
        (name, preemptions, Box::new(move |mode| accounts::check(&plan, mode)) as Check)
    });
    engine.chain(ledger).collect()
}

fn report(name: &str, check: Check, mode: Mode) -> Result<(), libtest_mimic::Failed> {
    let began = std::time::Instant::now();
    match check(mode) {
        Ok(found) => {
            let seconds = began.elapsed().as_secs_f32();
            println!(
                "{name}: {} schedules, killed in {}, lock's owner unannounced in {}, wake swallowed in {}; {seconds:.1} s",
                found.schedules, found.killed, found.unannounced, found.swallowed
            );
            Ok(())
        }
        Err(failure) => Err(explain(name, check, &failure).into()),
    }
}

/// An error that is not found is a fault of the plans.
fn hunt(number: usize) -> Result<(), libtest_mimic::Failed> {
    let (name, where_found) = MUTANTS[number];
    let mut schedules = 0;
    for (plan, preemptions, check) in small().iter().filter(|(plan, ..)| where_found.contains(plan)) {
        mutants::switch(Some(number));
        let found = check(Mode::Exhaustive { preemptions: (*preemptions).max(2) });
        mutants::switch(None);
        match found {
            Ok(summary) => schedules += summary.schedules,
            Err(failure) => {
                let what = failure.what.lines().next().unwrap_or_default();
                println!("{name}: found in \"{plan}\" after {} schedules: {what}", failure.schedule);
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
    for (plan, preemptions, check) in small() {
        let name = format!("every_schedule::{plan}");
        let preemptions = preemptions + more;
        trials.push(Trial::test(name.clone(), move || report(&name, check, Mode::Exhaustive { preemptions })));
    }
    for plan in plans::large() {
        let seed = number("MQNS_MODEL_SEED", 1) as u64;
        let (random, pct) = (format!("random::{}", plan.name), format!("pct::{}", plan.name));
        let other = plan.clone();
        trials.push(Trial::test(random.clone(), move || {
            report(&random, Box::new(move |mode| check(&plan, mode)), Mode::Random { schedules, seed })
        }));
        trials.push(Trial::test(pct.clone(), move || {
            report(&pct, Box::new(move |mode| check(&other, mode)), Mode::Pct { schedules, depth: 4, seed })
        }));
    }
    for (number, (name, _)) in MUTANTS.iter().enumerate() {
        trials.push(Trial::test(format!("error::{name}"), move || hunt(number)));
    }
    libtest_mimic::run(&args, trials).exit();
}
