//! Atomics as core has them, but for a look at the model before each access.

use crate::machine::kernel::{Access, before};
pub use core::sync::atomic::{Ordering, compiler_fence};

macro_rules! atomic {
    ($name:ident, $value:ty $(, $with:ident)?) => {
        #[repr(transparent)]
        #[derive(Default)]
        pub struct $name(core::sync::atomic::$name);

        impl $name {
            pub const fn new(value: $value) -> $name {
                $name(core::sync::atomic::$name::new(value))
            }

            pub const fn as_ptr(&self) -> *mut $value {
                self.0.as_ptr()
            }

            fn before(&self, access: Access) -> bool {
                before(self.0.as_ptr() as usize, access)
            }

            pub fn load(&self, order: Ordering) -> $value {
                self.before(Access::Load);
                self.0.load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                if self.before(Access::Store) {
                    self.0.store(value, order);
                }
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                if self.before(Access::Store) { self.0.swap(value, order) } else { self.0.load(Ordering::Relaxed) }
            }

            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                // The dead find that it has worked, and come to their end.
                if self.before(Access::Store) { self.0.compare_exchange(old, new, success, failure) } else { Ok(old) }
            }

            $(atomic!(@arithmetic $with, $value);)?
        }
    };
    (@arithmetic arithmetic, $value:ty) => {
        pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
            if self.before(Access::Store) { self.0.fetch_add(value, order) } else { 0 }
        }

        pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
            if self.before(Access::Store) { self.0.fetch_sub(value, order) } else { 0 }
        }

        pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
            if self.before(Access::Store) { self.0.fetch_or(value, order) } else { 0 }
        }

        pub fn fetch_xor(&self, value: $value, order: Ordering) -> $value {
            if self.before(Access::Store) { self.0.fetch_xor(value, order) } else { 0 }
        }

        pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
            if self.before(Access::Store) { self.0.fetch_and(value, order) } else { 0 }
        }
    };
}

atomic!(AtomicU16, u16, arithmetic);
atomic!(AtomicU32, u32, arithmetic);
atomic!(AtomicI32, i32, arithmetic);
atomic!(AtomicI64, i64, arithmetic);
atomic!(AtomicU64, u64, arithmetic);
atomic!(AtomicUsize, usize, arithmetic);

/// No thread of the model shares a pointer.
pub use core::sync::atomic::AtomicPtr;
