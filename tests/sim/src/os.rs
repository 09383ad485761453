//! Time, chance and idleness as the simulated members see them.
//!
//! The program defines a few functions of the C library itself. On the thread of the simulation they
//! answer from the virtual world, so `Instant`, `SystemTime`, hash maps and every random number need
//! no seam; on all others (the database has some) they ask the kernel.
//!
//! A runtime that has nothing to do waits in `epoll_wait`, for as long as its next timer is away.
//! That call is where a member tells how long it will be idle, and where control comes back.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use libc::{c_int, c_uint, c_void, clockid_t, epoll_event, size_t, ssize_t, timespec};
use tokio::runtime::Runtime;

use crate::random::Random;

/// Nanoseconds.
pub type Nanos = u64;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;

/// Virtual machines were started this long ago, in the year 2026.
const UPTIME: Nanos = 1_000 * SECOND;
const EPOCH: Nanos = 1_780_000_000 * SECOND;
/// Tasks that a member may run without time going by, in rounds of its scheduler.
const ROUNDS_MAX: u64 = 2_000_000;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<Nanos> = const { Cell::new(0) };
    /// How far the wall clock of the member that runs is off.
    static SKEW: Cell<i64> = const { Cell::new(0) };
    static NODE: Cell<usize> = const { Cell::new(usize::MAX) };
    static ENTROPY: Cell<u64> = const { Cell::new(0) };
    static IDLE: Cell<Option<Option<Nanos>>> = const { Cell::new(None) };
    static ROUNDS: Cell<u64> = const { Cell::new(0) };
    static DRIVER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Makes this thread the simulation's.
pub fn simulate(entropy: u64) {
    ENTROPY.set(entropy);
    SIMULATED.set(true);
}

pub fn now() -> Nanos {
    NOW.get()
}

pub fn set_now(now: Nanos) {
    debug_assert!(now >= NOW.get());
    NOW.set(now);
}

/// The member that runs.
pub fn node() -> usize {
    NODE.get()
}

/// Says which member runs, and how far its wall clock is off.
pub fn enter(node: usize, skew: i64) {
    NODE.set(node);
    SKEW.set(skew);
}

/// Runs a member's tasks until all wait. Returns how long its next timer is away, if there is one.
pub fn run_until_idle(runtime: &Runtime) -> Option<Nanos> {
    IDLE.set(None);
    ROUNDS.set(0);
    runtime.block_on(UntilIdle)
}

struct UntilIdle;

impl Future for UntilIdle {
    type Output = Option<Nanos>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match IDLE.take() {
            Some(idle) => Poll::Ready(idle),
            None => {
                DRIVER.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    if !SIMULATED.get() {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { libc::syscall(libc::SYS_epoll_wait, epoll, events, max, timeout_ms) }
            as c_int;
    }
    ROUNDS.set(ROUNDS.get() + 1);
    if ROUNDS.get() > ROUNDS_MAX {
        eprintln!("VIOLATION liveness: member {} never comes to rest", node());
        std::process::exit(1);
    }
    if timeout_ms != 0 {
        IDLE.set(Some(
            u64::try_from(timeout_ms).ok().map(|timeout| timeout * MS),
        ));
        if let Some(driver) = DRIVER.take() {
            driver.wake();
        }
    }
    0
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    if !SIMULATED.get() {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as c_int;
    }
    let time = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            (EPOCH + NOW.get()).saturating_add_signed(SKEW.get())
        }
        _ => UPTIME + NOW.get(),
    };
    // SAFETY: the caller gives a place for it.
    unsafe {
        (*out).tv_sec = (time / SECOND) as i64;
        (*out).tv_nsec = (time % SECOND) as i64;
    }
    0
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(out: *mut c_void, size: size_t, flags: c_uint) -> ssize_t {
    if !SIMULATED.get() {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { libc::syscall(libc::SYS_getrandom, out, size, flags) } as ssize_t;
    }
    let mut random = Random::new(ENTROPY.get());
    for at in 0..size {
        // SAFETY: the caller gives `size` bytes.
        unsafe { out.cast::<u8>().add(at).write(random.next() as u8) };
    }
    ENTROPY.set(random.next());
    size as ssize_t
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpid() -> c_int {
    if !SIMULATED.get() {
        // SAFETY: it has no arguments.
        return unsafe { libc::syscall(libc::SYS_getpid) } as c_int;
    }
    1
}
