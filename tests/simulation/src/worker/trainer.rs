//! A trainer and its guard: it trains, fails, hangs or ends when told to, and never outlives its deadline by the host's clock.

use stepcast_scheduler::ids::{Epoch as LogEpoch, JobId};
use stepcast_worker::agent::{Epoch, Exit, ExitStatus, Failure, Input};
use stepcast_worker::event::{Event, Received, Stage, StageStatus};

use super::hop;
use crate::checks::{Begun, Finish};
use crate::kernel::{MS, Micros, SECOND};
use crate::mutant::Mutant;
use crate::world::World;

/// SIGKILL's number.
const SIGKILL: i32 = 9;

/// SIGTERM's number.
const SIGTERM: i32 = 15;

/// A trainer that is being prepared.
pub(super) struct Launching {
    told_to_end: bool,
}

/// A trainer that runs under its guard.
pub(super) struct Trainer {
    life: u64,
    /// As it was begun.
    what: Begun,
    plan: Plan,
    step: u64,
    /// The host's clock when the guard kills it.
    deadline: Micros,
    asked_to_end: bool,
    checkpoint_asked: bool,
    dying: bool,
    /// It has said that it is complete: all of it is saved, however it ends.
    complete: bool,
}

/// What a trainer will do if it is left alone.
#[derive(Debug, Clone, Copy)]
struct Plan {
    steps: u64,
    step_takes: Micros,
    checkpoint_every: u64,
    fails_at: Option<u64>,
    /// How long it takes to end after SIGTERM; longer than anybody waits for some.
    ends_in: Micros,
}

/// The worker has it prepared and started.
pub(super) fn launch(world: &mut World, number: u64, life: u64, order: Order) {
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    if machine.life != life || machine.running.is_none() {
        return;
    }
    machine
        .launching
        .insert(order.epoch, Launching { told_to_end: false });
    let (takes, fails) = world
        .kernel
        .roll(|dice| (dice.between(20 * MS, 900 * MS), dice.per_mille(20)));
    world.kernel.after(takes, move |world| {
        launched(world, number, life, &order, fails);
    });
}

/// What is to be run.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) epoch: Epoch,
    pub(super) job: JobId,
    pub(super) gpus: Vec<u8>,
    /// Its number among the hosts of a gang, 0 for one that is alone.
    pub(super) rank: u8,
    pub(super) steps: u64,
    /// The host's clock when it must have ended.
    pub(super) until: Micros,
}

fn launched(world: &mut World, number: u64, life: u64, order: &Order, fails: bool) {
    let epoch = order.epoch;
    let now = world.kernel.now();
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    if machine.life != life {
        return;
    }
    if machine.is_paused() {
        // It starts nothing now, and will when it goes on, before it has looked at anything else.
        let order = order.clone();
        world.kernel.after(MS, move |world| {
            launched(world, number, life, &order, fails);
        });
        return;
    }
    let over = machine.clock.micros() >= order.until;
    let Some(launching) = machine.launching.remove(&epoch) else {
        return;
    };
    if launching.told_to_end || fails || over {
        let failed = Input::LaunchFailed {
            epoch,
            failure: Failure::LaunchFailed,
            detail: "it was not started".to_owned(),
        };
        machine.tell(life, failed);
        return;
    }
    let plan = world.kernel.roll(|dice| Plan {
        steps: order.steps,
        step_takes: dice.between(60 * MS, 700 * MS),
        checkpoint_every: dice.between(3, 9),
        fails_at: dice.per_mille(120).then(|| dice.between(1, 20)),
        ends_in: if dice.per_mille(150) {
            dice.between(10 * SECOND, 90 * SECOND)
        } else {
            dice.between(MS, 3 * SECOND)
        },
    });
    let begun = Begun {
        epoch: LogEpoch(epoch),
        job: order.job,
        worker: number,
        gpus: order.gpus.clone(),
        is_first: order.rank == 0,
    };
    let trainer = Trainer {
        life,
        what: begun.clone(),
        plan,
        step: 0,
        deadline: order.until,
        asked_to_end: false,
        checkpoint_asked: false,
        dying: false,
        complete: false,
    };
    machine.trainers.insert(epoch, trainer);
    // It always begins at its beginning.
    machine.tell(life, Input::Launched { epoch, from: 0 });
    let found = world.checks.trainers.lock().begin(begun, now);
    world.checks.judge(found);
    world.checks.count("trainers started");
    if order.rank > 0 {
        world.checks.count("parts of gangs started");
    }
    world.checks.note("trainer", || {
        format!("host {number} trains {} under epoch {epoch}", order.job)
    });
    guard(world, number, epoch);
    let ready = world.kernel.roll(|dice| dice.between(20 * MS, SECOND));
    world.kernel.after(ready, move |world| {
        event(
            world,
            number,
            epoch,
            Event::Ready {
                step: 0,
                total: plan.steps,
                batches: 0,
            },
        );
        step(world, number, epoch);
    });
}

/// The guard waits for the deadline it was told last.
fn guard(world: &mut World, number: u64, epoch: Epoch) {
    let Some(machine) = world.workers.get(&number) else {
        return;
    };
    let Some(guarded) = machine.trainers.get(&epoch) else {
        return;
    };
    let deadline = guarded.deadline;
    let left = deadline.saturating_sub(machine.clock.micros());
    let wait = machine.clock.truly(left);
    world.kernel.after(wait, move |world| {
        let told_another =
            self::trainer(world, number, epoch).is_none_or(|trainer| trainer.deadline != deadline);
        // A deliberate bug: nobody is there to end it.
        let sleeps = world.options.mutant == Some(Mutant::GuardSleeps);
        if !told_another && !sleeps {
            world.checks.count("trainers ended by their guard");
            kill(world, number, epoch);
        }
    });
}

/// The next step is done, or something else happens instead.
fn step(world: &mut World, number: u64, epoch: Epoch) {
    let Some(trainer) = trainer(world, number, epoch).filter(|trainer| !trainer.dying) else {
        return;
    };
    if trainer.plan.fails_at == Some(trainer.step) {
        trainer.dying = true;
        exit(world, number, epoch, ExitStatus::Code(1));
        return;
    }
    if trainer.step >= trainer.plan.steps {
        (trainer.dying, trainer.complete) = (true, true);
        complete(world, number, epoch);
        return;
    }
    trainer.step += 1;
    let (step, plan) = (trainer.step, trainer.plan);
    let saves =
        step.is_multiple_of(plan.checkpoint_every) || std::mem::take(&mut trainer.checkpoint_asked);
    let done = Event::Step {
        step,
        total: plan.steps,
        step_ms: Some(plan.step_takes as f64 / MS as f64),
        epoch: Some(1),
    };
    event(world, number, epoch, done);
    if saves {
        event(world, number, epoch, Event::Checkpoint { step: Some(step) });
    }
    world.kernel.after(plan.step_takes, move |world| {
        self::step(world, number, epoch);
    });
}

fn complete(world: &mut World, number: u64, epoch: Epoch) {
    let stage = Event::Stage {
        stage: Stage::TrainingComplete,
        status: StageStatus::Completed,
    };
    event(world, number, epoch, stage);
    let takes = world.kernel.roll(|dice| dice.between(5 * MS, 300 * MS));
    world.kernel.after(takes, move |world| {
        exit(world, number, epoch, ExitStatus::Code(0));
    });
}

/// The worker names a later deadline, counted from now.
pub(super) fn deadline(world: &mut World, number: u64, epoch: Epoch, in_ms: u64) {
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    let now = machine.clock.micros();
    if let Some(trainer) = machine.trainers.get_mut(&epoch) {
        trainer.deadline = now + in_ms * MS;
    }
    guard(world, number, epoch);
}

/// The worker wants a checkpoint.
pub(super) fn checkpoint(world: &mut World, number: u64, epoch: Epoch) {
    if let Some(trainer) = trainer(world, number, epoch) {
        trainer.checkpoint_asked = true;
    }
}

/// SIGTERM.
pub(super) fn terminate(world: &mut World, number: u64, epoch: Epoch) {
    if let Some(launching) = launching(world, number, epoch) {
        launching.told_to_end = true;
        return;
    }
    let Some(trainer) = trainer(world, number, epoch).filter(|t| !t.asked_to_end) else {
        return;
    };
    trainer.asked_to_end = true;
    let ends_in = trainer.plan.ends_in;
    world.kernel.after(ends_in, move |world| {
        exit(world, number, epoch, ExitStatus::Signal(SIGTERM));
    });
}

/// SIGKILL to everything of it.
pub(super) fn kill(world: &mut World, number: u64, epoch: Epoch) {
    if let Some(launching) = launching(world, number, epoch) {
        launching.told_to_end = true;
        return;
    }
    let Some(trainer) = trainer(world, number, epoch) else {
        return;
    };
    trainer.dying = true;
    let takes = world.kernel.roll(|dice| dice.between(MS, 60 * MS));
    world.kernel.after(takes, move |world| {
        exit(world, number, epoch, ExitStatus::Signal(SIGKILL));
    });
}

/// All of the host's trainers end in this moment, and nobody is told.
pub(super) fn vanish(world: &mut World, number: u64) {
    let now = world.kernel.now();
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    for (epoch, _) in std::mem::take(&mut machine.trainers) {
        world
            .checks
            .trainers
            .lock()
            .end(LogEpoch(epoch), number, Finish::Otherwise, now);
    }
}

/// Nothing of it is left; its guard says so to the worker.
fn exit(world: &mut World, number: u64, epoch: Epoch, status: ExitStatus) {
    let now = world.kernel.now();
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    let Some(trainer) = machine.trainers.remove(&epoch) else {
        return;
    };
    let finish = match trainer.complete {
        true => Finish::Complete,
        false => Finish::Otherwise,
    };
    world
        .checks
        .trainers
        .lock()
        .end(LogEpoch(epoch), number, finish, now);
    world.checks.note("trainer", || {
        format!("epoch {epoch} on host {number} ends: {status:?}")
    });
    // A deliberate bug: what has failed is begun once more, and nobody is told.
    if world.options.mutant == Some(Mutant::BeginsAgain) && !trainer.complete {
        let found = world.checks.trainers.lock().begin(trainer.what, now);
        world.checks.judge(found);
        return;
    }
    let exit = Exit {
        status,
        tail: Vec::new(),
    };
    let takes = hop(world);
    world.kernel.after(takes, move |world| {
        if let Some(machine) = world.workers.get(&number) {
            machine.tell(trainer.life, Input::Exited { epoch, exit });
        }
    });
}

/// A webhook.
fn event(world: &mut World, number: u64, epoch: Epoch, event: Event) {
    let Some(life) = trainer(world, number, epoch).map(|trainer| trainer.life) else {
        return;
    };
    let received = Received {
        event,
        sent_ms: None,
    };
    if let Some(machine) = world.workers.get(&number) {
        machine.tell(life, Input::Event(epoch, received));
    }
}

fn trainer(world: &mut World, number: u64, epoch: Epoch) -> Option<&mut Trainer> {
    world.workers.get_mut(&number)?.trainers.get_mut(&epoch)
}

fn launching(world: &mut World, number: u64, epoch: Epoch) -> Option<&mut Launching> {
    world.workers.get_mut(&number)?.launching.get_mut(&epoch)
}

/// Whether a trainer of this attempt is left.
pub(super) fn runs(world: &World, number: u64, epoch: Epoch) -> bool {
    world
        .workers
        .get(&number)
        .is_some_and(|machine| machine.trainers.contains_key(&epoch))
}
