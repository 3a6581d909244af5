//! Moves the clock of a program that asks the C library for the time: loaded into it by `LD_PRELOAD`, it adds
//! `LETHE_CLOCK_OFFSET` seconds to the time of day and to nothing else. How long a program waits stays as it is: deadlines
//! that are times of day are moved back, and the monotonic clock is left alone.
//!
//! Built by `build.rs` apart from the crate, without a standard library, so that it depends on whatever C library the
//! program has. libfaketime 0.9.10, as Debian 12 has it, fails here: with its monotonic clock Python's `Event.wait` never
//! returns, and without it `time.sleep` is an error.
#![no_std]

use core::{
    ffi::{CStr, c_char, c_int, c_long, c_void},
    mem::transmute,
    ptr::null_mut,
    sync::atomic::{AtomicI64, AtomicPtr, Ordering::Relaxed},
};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Time {
    seconds: c_long,
    /// Nanoseconds, or microseconds for `gettimeofday`.
    rest: c_long,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Timer {
    interval: Time,
    value: Time,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
}

/// `CLOCK_REALTIME` and `CLOCK_REALTIME_COARSE`.
const TIMES_OF_DAY: [c_int; 2] = [0, 5];
/// `TIMER_ABSTIME` and `TFD_TIMER_ABSTIME`.
const ABSOLUTE: c_int = 1;
/// No machine runs for so long, so that what is beyond is a time of day: 30 years.
const UPTIME_MAX: c_long = 946_080_000;
const UNKNOWN: i64 = i64::MIN;
/// `RTLD_NEXT`.
const NEXT: *mut c_void = -1_isize as *mut c_void;

static OFFSET: AtomicI64 = AtomicI64::new(UNKNOWN);

fn offset() -> c_long {
    let known = OFFSET.load(Relaxed);
    if known != UNKNOWN {
        return known as c_long;
    }
    let mut offset: i64 = 0;
    // SAFETY: what is returned is null or a text with an end, which programs do not change while they start.
    unsafe {
        let text = getenv(c"LETHE_CLOCK_OFFSET".as_ptr());
        if !text.is_null() {
            for digit in CStr::from_ptr(text).to_bytes() {
                if digit.is_ascii_digit() {
                    offset = offset.wrapping_mul(10).wrapping_add(i64::from(*digit - b'0'));
                }
            }
        }
    }
    OFFSET.store(offset, Relaxed);
    offset as c_long
}

/// The function of this name that would be called without this library.
macro_rules! next {
    ($name:ident: $kind:ty) => {{
        static FOUND: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
        let mut found = FOUND.load(Relaxed);
        if found.is_null() {
            found = dlsym(NEXT, concat!(stringify!($name), "\0").as_ptr().cast());
            FOUND.store(found, Relaxed);
        }
        transmute::<*mut c_void, Option<$kind>>(found)
    }};
}

/// The same where a C library may have an older function of that name beside: before glibc 2.36, `dlsym` gave that one (its bug 14932).
/// Where there is one alone, as on ARM and in other C libraries, nothing has this version, and the one is taken.
unsafe fn versioned(name: &CStr, version: &CStr) -> *mut c_void {
    unsafe {
        // Asked for by name, since another C library does not have it. Null is `RTLD_DEFAULT`.
        let dlvsym = dlsym(null_mut(), c"dlvsym".as_ptr());
        type Find = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;
        if let Some(find) = transmute::<*mut c_void, Option<Find>>(dlvsym) {
            let found = find(NEXT, name.as_ptr(), version.as_ptr());
            if !found.is_null() {
                return found;
            }
        }
        dlsym(NEXT, name.as_ptr())
    }
}

/// The deadline in the machine's time.
unsafe fn moved_back(deadline: *const Time) -> Time {
    let mut moved = unsafe { *deadline };
    if moved.seconds > UPTIME_MAX {
        moved.seconds = moved.seconds.wrapping_sub(offset());
    }
    moved
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    unsafe {
        let Some(next) = next!(clock_gettime: unsafe extern "C" fn(c_int, *mut Time) -> c_int) else {
            return -1;
        };
        let done = next(clock, time);
        if done == 0 && TIMES_OF_DAY.contains(&clock) && !time.is_null() {
            (*time).seconds = (*time).seconds.wrapping_add(offset());
        }
        done
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Time, zone: *mut c_void) -> c_int {
    unsafe {
        let Some(next) = next!(gettimeofday: unsafe extern "C" fn(*mut Time, *mut c_void) -> c_int) else {
            return -1;
        };
        let done = next(time, zone);
        if done == 0 && !time.is_null() {
            (*time).seconds = (*time).seconds.wrapping_add(offset());
        }
        done
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(time: *mut c_long) -> c_long {
    let mut now = Time { seconds: 0, rest: 0 };
    unsafe {
        clock_gettime(0, &raw mut now);
        if !time.is_null() {
            *time = now.seconds;
        }
    }
    now.seconds
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timespec_get(time: *mut Time, base: c_int) -> c_int {
    unsafe {
        let Some(next) = next!(timespec_get: unsafe extern "C" fn(*mut Time, c_int) -> c_int) else {
            return 0;
        };
        let done = next(time, base);
        // `TIME_UTC`.
        if done == 1 && !time.is_null() {
            (*time).seconds = (*time).seconds.wrapping_add(offset());
        }
        done
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_nanosleep(
    clock: c_int,
    flags: c_int,
    until: *const Time,
    left: *mut Time,
) -> c_int {
    unsafe {
        type Next = unsafe extern "C" fn(c_int, c_int, *const Time, *mut Time) -> c_int;
        // `ENOSYS`.
        let Some(next) = next!(clock_nanosleep: Next) else { return 38 };
        if flags & ABSOLUTE != 0 && TIMES_OF_DAY.contains(&clock) && !until.is_null() {
            let moved = moved_back(until);
            return next(clock, flags, &raw const moved, left);
        }
        next(clock, flags, until, left)
    }
}

/// A function whose last argument is a deadline, of whichever clock.
macro_rules! with_deadline {
    ($name:ident($($argument:ident: $kind:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind,)* deadline: *const Time) -> c_int {
            unsafe {
                let Some(next) = next!($name: unsafe extern "C" fn($($kind,)* *const Time) -> c_int) else { return 38 };
                if deadline.is_null() {
                    return next($($argument,)* deadline);
                }
                let moved = moved_back(deadline);
                next($($argument,)* &raw const moved)
            }
        }
    };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut c_void,
    mutex: *mut c_void,
    deadline: *const Time,
) -> c_int {
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    unsafe {
        type Next = unsafe extern "C" fn(*mut c_void, *mut c_void, *const Time) -> c_int;
        let mut found = FOUND.load(Relaxed);
        if found.is_null() {
            found = versioned(c"pthread_cond_timedwait", c"GLIBC_2.3.2");
            FOUND.store(found, Relaxed);
        }
        let Some(next) = transmute::<*mut c_void, Option<Next>>(found) else { return 38 };
        if deadline.is_null() {
            return next(condition, mutex, deadline);
        }
        let moved = moved_back(deadline);
        next(condition, mutex, &raw const moved)
    }
}

with_deadline!(pthread_cond_clockwait(condition: *mut c_void, mutex: *mut c_void, clock: c_int));
with_deadline!(pthread_mutex_timedlock(mutex: *mut c_void));
with_deadline!(sem_timedwait(semaphore: *mut c_void));
with_deadline!(sem_clockwait(semaphore: *mut c_void, clock: c_int));

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timerfd_settime(
    file: c_int,
    flags: c_int,
    new: *const Timer,
    old: *mut Timer,
) -> c_int {
    unsafe {
        type Next = unsafe extern "C" fn(c_int, c_int, *const Timer, *mut Timer) -> c_int;
        let Some(next) = next!(timerfd_settime: Next) else { return -1 };
        if flags & ABSOLUTE == 0 || new.is_null() {
            return next(file, flags, new, old);
        }
        let mut moved = *new;
        moved.value = moved_back(&raw const moved.value);
        next(file, flags, &raw const moved, old)
    }
}
