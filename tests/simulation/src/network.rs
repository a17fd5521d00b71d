//! The wires between hosts: datagrams that may be lost, doubled or late, and streams that keep their order until they break.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::kernel::{Host, Kernel, MS, Micros, SECOND};

/// A connection over which nothing has come for so long is given up: the keep-alive of servers and workers (20 s, and 10 s
/// for the answer).
const KEEPALIVE: Micros = 30 * SECOND;

/// How often a silent connection is looked at.
const PING: Micros = 10 * SECOND;

/// How soon something that did not get through is sent again.
const RESEND: Micros = 40 * MS;

/// Who cannot reach whom, and how well the others can.
#[derive(Default)]
pub(crate) struct Network {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// From the first, nothing reaches the second.
    cut: BTreeSet<(Host, Host)>,
    /// Datagrams in a thousand that are lost.
    lost: u64,
    /// Datagrams in a thousand that come twice.
    doubled: u64,
    /// Anything in a thousand that is late.
    late: u64,
    /// How late at most.
    late_at_most: Micros,
}

impl Network {
    /// From now on nothing of the first reaches the second.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        self.inner.lock().cut.insert((from, to));
    }

    /// This direction works again.
    pub(crate) fn mend(&self, from: Host, to: Host) {
        self.inner.lock().cut.remove(&(from, to));
    }

    /// Everything works.
    pub(crate) fn mend_all(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// How bad the wires are from now on.
    pub(crate) fn weather(&self, lost: u64, doubled: u64, late: u64, late_at_most: Micros) {
        let mut inner = self.inner.lock();
        (inner.lost, inner.doubled, inner.late) = (lost, doubled, late);
        inner.late_at_most = late_at_most;
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.inner.lock().cut.contains(&(from, to))
    }

    /// When each copy of a datagram arrives; none if it is lost.
    pub(crate) fn datagram(&self, kernel: &Kernel) -> [Option<Micros>; 2] {
        let (lost, doubled) = {
            let inner = self.inner.lock();
            (inner.lost, inner.doubled)
        };
        let (is_lost, is_doubled) =
            kernel.roll(|dice| (dice.per_mille(lost), dice.per_mille(doubled)));
        if is_lost {
            return [None, None];
        }
        [
            Some(self.delay(kernel)),
            is_doubled.then(|| self.delay(kernel)),
        ]
    }

    /// How long one thing is under way.
    pub(crate) fn delay(&self, kernel: &Kernel) -> Micros {
        let (late, at_most) = {
            let inner = self.inner.lock();
            (inner.late, inner.late_at_most)
        };
        kernel.roll(|dice| {
            if dice.per_mille(late) {
                dice.between(MS, at_most)
            } else {
                dice.between(80, 900)
            }
        })
    }
}

/// Opens one direction of a connection.
pub(crate) fn pipe<T: Send + 'static>(
    kernel: &Arc<Kernel>,
    network: &Arc<Network>,
    from: Host,
    to: Host,
) -> (Sender<T>, Receiver<T>) {
    let pipe = Arc::new(Pipe {
        kernel: Arc::clone(kernel),
        network: Arc::clone(network),
        from,
        to,
        inner: Mutex::new(Flow::default()),
    });
    ping(Arc::clone(&pipe));
    (Sender(Arc::clone(&pipe)), Receiver(pipe))
}

/// Where things go in. Dropping it ends the stream after what was sent.
pub(crate) struct Sender<T: Send + 'static>(Arc<Pipe<T>>);

/// Where they come out. Dropping it is noticed by the sender after a while.
pub(crate) struct Receiver<T: Send + 'static>(Arc<Pipe<T>>);

struct Pipe<T> {
    kernel: Arc<Kernel>,
    network: Arc<Network>,
    from: Host,
    to: Host,
    inner: Mutex<Flow<T>>,
}

struct Flow<T> {
    /// Sent, not arrived; `None` is the end.
    under_way: VecDeque<Option<T>>,
    arrived: VecDeque<T>,
    last_arrival: Micros,
    /// Since when nothing gets through.
    blocked: Option<Micros>,
    ended: bool,
    receiver_gone: bool,
    sender_knows: bool,
    receiving: Option<Waker>,
    sending: Option<Waker>,
}

impl<T> Default for Flow<T> {
    fn default() -> Self {
        Self {
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            last_arrival: 0,
            blocked: None,
            ended: false,
            receiver_gone: false,
            sender_knows: false,
            receiving: None,
            sending: None,
        }
    }
}

impl<T> Flow<T> {
    /// The connection is gone for both.
    fn broken(&mut self) {
        self.under_way.clear();
        self.ended = true;
        self.sender_knows = true;
        self.receiving.take().into_iter().for_each(Waker::wake);
        self.sending.take().into_iter().for_each(Waker::wake);
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Sends one thing; it may never arrive, but then nothing later does either.
    pub(crate) fn send(&self, item: T) {
        Pipe::send(&self.0, Some(item));
    }

    /// Waits until the other side is known to be gone.
    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            let mut flow = self.0.inner.lock();
            if flow.sender_knows {
                return Poll::Ready(());
            }
            flow.sending = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl<T: Send + 'static> Drop for Sender<T> {
    fn drop(&mut self) {
        Pipe::send(&self.0, None);
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// The next thing; `None` once the stream has ended or broken.
    pub(crate) async fn next(&mut self) -> Option<T> {
        poll_fn(|context| {
            let mut flow = self.0.inner.lock();
            if let Some(item) = flow.arrived.pop_front() {
                return Poll::Ready(Some(item));
            }
            if flow.ended {
                return Poll::Ready(None);
            }
            flow.receiving = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Has the connection break here and now, as a faulty switch does.
    pub(crate) fn breaker(&self) -> Breaker {
        let pipe = Arc::downgrade(&self.0);
        Breaker(Box::new(move || {
            if let Some(pipe) = pipe.upgrade() {
                pipe.inner.lock().broken();
            }
        }))
    }
}

/// Breaks a connection.
pub(crate) struct Breaker(Box<dyn FnOnce() + Send>);

impl Breaker {
    pub(crate) fn snap(self) {
        (self.0)();
    }
}

impl<T: Send + 'static> Drop for Receiver<T> {
    fn drop(&mut self) {
        {
            let mut flow = self.0.inner.lock();
            flow.receiver_gone = true;
            flow.arrived.clear();
        }
        goodbye(Arc::clone(&self.0), self.0.kernel.now() + KEEPALIVE);
    }
}

impl<T: Send + 'static> Pipe<T> {
    fn send(this: &Arc<Self>, item: Option<T>) {
        let delay = this.network.delay(&this.kernel);
        let now = this.kernel.now();
        let wait = {
            let mut flow = this.inner.lock();
            if flow.ended || flow.receiver_gone && flow.sender_knows {
                return;
            }
            flow.under_way.push_back(item);
            flow.last_arrival = flow.last_arrival.max(now + delay);
            flow.last_arrival - now
        };
        let pipe = Arc::clone(this);
        this.kernel.after(wait, move |_| Self::arrive(&pipe));
    }

    /// What is first under way arrives, or is sent again later.
    fn arrive(this: &Arc<Self>) {
        if !this.gets_through() {
            let pipe = Arc::clone(this);
            this.kernel.after(RESEND, move |_| Self::arrive(&pipe));
            return;
        }
        let mut flow = this.inner.lock();
        match flow.under_way.pop_front() {
            Some(Some(item)) if !flow.receiver_gone => flow.arrived.push_back(item),
            Some(None) => flow.ended = true,
            Some(Some(_)) | None => {}
        }
        flow.receiving.take().into_iter().for_each(Waker::wake);
    }

    /// Whether this direction works; gives the connection up when it has not for long.
    fn gets_through(&self) -> bool {
        let cut =
            self.network.is_cut(self.from, self.to) || self.network.is_cut(self.to, self.from);
        let now = self.kernel.now();
        let mut flow = self.inner.lock();
        if flow.ended {
            return true;
        }
        if !cut {
            flow.blocked = None;
            return true;
        }
        let since = *flow.blocked.get_or_insert(now);
        if now >= since + KEEPALIVE {
            flow.broken();
            return true;
        }
        false
    }
}

/// The keep-alive of a connection on which nothing is said.
fn ping<T: Send + 'static>(pipe: Arc<Pipe<T>>) {
    let kernel = Arc::clone(&pipe.kernel);
    kernel.after(PING, move |_| {
        let over = {
            let flow = pipe.inner.lock();
            flow.ended || flow.receiver_gone
        };
        if !over {
            pipe.gets_through();
            ping(pipe);
        }
    });
}

/// Word that the receiver is gone travels back, or is found out by the keep-alive.
fn goodbye<T: Send + 'static>(pipe: Arc<Pipe<T>>, at_last: Micros) {
    let kernel = Arc::clone(&pipe.kernel);
    let delay = pipe.network.delay(&kernel);
    kernel.after(delay, move |_| {
        let cut = pipe.network.is_cut(pipe.to, pipe.from);
        if cut && pipe.kernel.now() < at_last {
            let kernel = Arc::clone(&pipe.kernel);
            kernel.after(RESEND, move |_| goodbye(pipe, at_last));
            return;
        }
        pipe.inner.lock().broken();
    });
}
