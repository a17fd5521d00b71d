//! A worker that was asked to stop, over the wire: what it is told, who may follow it, and what people see.

use stepcast_proto::v1;
use v1::attach_request::Report;

use crate::support::{Agent, Server, reason, submission};

impl Server {
    /// The only worker, as people see it.
    async fn only_worker(&self) -> v1::Worker {
        let mut service = self.workers();
        let answer = service.list_workers(v1::ListWorkersRequest {}).await;
        let mut workers = answer.unwrap().into_inner().workers;
        assert_eq!(workers.len(), 1);
        workers.remove(0)
    }

    async fn has_left(&self) {
        while self.only_worker().await.state() != v1::WorkerState::Lost {
            tokio::task::yield_now().await;
        }
    }

    async fn submit(&self, id: char) -> v1::Job {
        let answer = self.jobs().submit_job(submission(id)).await;
        answer.unwrap().into_inner().job.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_leaves_is_given_nothing_and_followed_by_nobody_until_it_has_ended() {
    let server = Server::start().await;
    let token = server.token("replay-1").await;
    let agent = Agent::new(&server, token.secret);
    let registered = agent.register('a', &["replay"]).await.unwrap();
    let mut worker = agent.attach(registered.worker, 'a').await.unwrap();
    server.submit('1').await;
    let running = worker.assigned().await;
    worker.say(Report::Leaving(v1::Leaving {})).await;
    server.has_left().await;
    let seen = server.only_worker().await;
    assert!(seen.attached && seen.since_time.is_some());
    assert_eq!(
        seen.gpus[0].job, running.job,
        "it is busy until it has ended"
    );
    // Another process with its token would be told to run the same attempt beside it.
    let early = agent.register('b', &["replay"]).await.unwrap_err();
    assert_eq!(reason(&early), "TOKEN_IN_USE");
    server.submit('2').await;
    worker.succeed(&running).await;
    // It closes its side; the server's end of the stream tells it that everything was heard.
    let parted = worker.farewell().await;
    assert_eq!(parted, Ok(Some(v1::Parting::TooSlow)));
    assert!(!server.only_worker().await.attached);
    // Now it may be followed, and what waited begins there.
    let follower = agent.register('b', &["replay"]).await.unwrap();
    let mut follower = agent.attach(follower.worker, 'b').await.unwrap();
    assert_ne!(follower.assigned().await.job, running.job);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_comes_back_only_to_end_what_it_runs_is_given_nothing_more() {
    let server = Server::start().await;
    let token = server.token("replay-1").await;
    let agent = Agent::new(&server, token.secret);
    let registered = agent.register('a', &["replay"]).await.unwrap();
    let leaving = agent.attach_leaving(registered.worker, 'a').await.unwrap();
    server.has_left().await;
    server.submit('1').await;
    assert_eq!(server.only_worker().await.gpus[0].job, "");
    // Its session goes on until it ends it.
    assert!(server.only_worker().await.attached);
    assert_eq!(leaving.farewell().await, Ok(Some(v1::Parting::TooSlow)));
    server.stop().await;
}
