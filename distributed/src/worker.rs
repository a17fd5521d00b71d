//! A worker: runs the shares of questions that others send it, over its own way to the store.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as Planned;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DistributedExt, Worker, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse,
    WorkerPlanRewriteHandler, WorkerQueryContext,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::store;

/// So many plans are kept to ask them what they did; older ones are summed up first.
const PLANS_KEPT: usize = 64;

/// Serves until it is told to stop, and says then what it has done.
pub(crate) async fn serve(location: &str, listen: SocketAddr, memory: usize) -> Result<()> {
    let done = Arc::new(Done::default());
    let noted = Arc::clone(&done);
    let worker = Worker::from_session_builder(move |context: WorkerQueryContext| {
        let noted = Noted(Arc::clone(&noted));
        async move {
            let builder = context.builder;
            Ok(builder
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
