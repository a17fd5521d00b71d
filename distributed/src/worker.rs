//! A worker: runs the shares of questions that others send it, over its own way to the store.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as Planned};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DistributedExt, Worker, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse,
    WorkerPlanRewriteHandler, WorkerQueryContext,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::store;

/// So many plans are kept to ask them what they did; older ones are summed up first.
const PLANS_KEPT: usize = 64;

/// Serves until it is told to stop, and says then what it has done.
pub(crate) async fn serve(
    location: &str,
    listen: SocketAddr,
    memory: usize,
    tasks: usize,
) -> Result<()> {
    let done = Arc::new(Done::default());
    let noted = Arc::clone(&done);
    let room = Room::of(tasks);
    let worker = Worker::from_session_builder(move |context: WorkerQueryContext| {
        let noted = Noted(Arc::clone(&noted));
        let place = room.enter();
        async move {
            let mut builder = context.builder;
            // Whatever runs the task holds its configuration, and the place with it, to the end.
            let config = builder.config().take().unwrap_or_default();
            Ok(builder
                .with_config(config.with_extension(Arc::new(place?)))
                .with_distributed_worker_plan_rewrite_handler(noted)
                .build())
        }
    });
    let worker = worker.with_runtime_env(store::environment(location, memory)?);
    let incoming = TcpIncoming::bind(listen).with_context(|| format!("listening on {listen}"))?;
    println!("{}", json!({ "listens": incoming.local_addr()? }));
    let mut end = signal(SignalKind::terminate())?;
    let serving = Server::builder()
        .add_service(worker.into_worker_server())
        .serve_with_incoming(incoming);
    tokio::select! {
        served = serving => served?,
        _ = end.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let sum = done.sum();
    println!(
        "{}",
        json!({ "tasks": sum.tasks, "scans": sum.scans, "rows_read": sum.rows })
    );
    Ok(())
}

/// Room for so many tasks at the same time: each is a plan with its buffers, which the bound on memory does not count.
///
/// Nothing waits for room. The tasks of one question read from each other, so a question that holds room on one worker and
/// waits for it on another would hold up others that do the same.
#[derive(Clone)]
struct Room {
    places: Arc<Semaphore>,
    tasks: usize,
}

/// A task's place. It is free again a moment after the task: what is kept of one is dropped a third of a second later.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn of(tasks: usize) -> Self {
        let places = Arc::new(Semaphore::new(tasks));
        Self { places, tasks }
    }

    /// A place for one more task, until it is dropped.
    ///
    /// # Errors
    /// There is none: whoever asks may ask again later.
    fn enter(&self) -> Planned<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_full| {
            let tasks = self.tasks;
            DataFusionError::ResourcesExhausted(format!(
                "a worker has its {tasks} tasks: ask again when other questions are answered, or start workers with more (--tasks)"
            ))
        })?;
        Ok(Place { _permit: permit })
    }
}

/// What was done in all.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    /// Shares of questions.
    tasks: usize,
    /// How many of them read the table.
    scans: usize,
    /// Rows that came out of the table, before any of them were put together.
    rows: usize,
}

impl Sum {
    /// With what a plan has done by now.
    fn with(mut self, plan: &Arc<dyn ExecutionPlan>) -> Self {
        self.tasks += 1;
        // The closure has no way to fail.
        let _ = plan.apply(|part| {
            if part.downcast_ref::<DataSourceExec>().is_some() {
                let metrics = part.metrics().unwrap_or_default();
                self.scans += 1;
                self.rows += metrics.output_rows().unwrap_or(0);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        self
    }
}

/// What this worker was given: plans count while they run, so they are asked late.
#[derive(Default)]
struct Done(Mutex<(Sum, Vec<Arc<dyn ExecutionPlan>>)>);

impl Done {
    fn note(&self, plan: &Arc<dyn ExecutionPlan>) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, plans) = &mut *done;
        if plans.len() == PLANS_KEPT {
            *sum = sum.with(&plans.remove(0));
        }
        plans.push(Arc::clone(plan));
    }

    fn sum(&self) -> Sum {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, plans) = &*done;
        plans.iter().fold(*sum, Sum::with)
    }
}

/// Notes each plan and leaves it as it is.
struct Noted(Arc<Done>);

impl WorkerPlanRewriteHandler for Noted {
    fn rewrite_worker_plan(
        &self,
        event: WorkerPlanRewriteEvent<'_>,
    ) -> Planned<WorkerPlanRewriteEventResponse> {
        self.0.note(&event.plan);
        Ok(WorkerPlanRewriteEventResponse::new(event.plan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_takes_so_many_tasks_and_refuses_the_next() -> Planned<()> {
        let room = Room::of(2);
        let (first, _second) = (room.enter()?, room.enter()?);
        let refused = room.enter().expect_err("there is no room");
        assert!(refused.to_string().contains("--tasks"), "{refused}");
        drop(first);
        room.enter().map(drop)
    }
}
