//! Workers as the tests play them: a token, a stream, and what is said over it.

use stepcast_proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use v1::agent_service_client::AgentServiceClient;

use super::{PATIENCE, Server};

/// A process that shows a worker's secret.
#[derive(Clone)]
pub(crate) struct Agent {
    client: AgentServiceClient<Channel>,
    secret: String,
}

impl Agent {
    pub(crate) fn new(server: &Server, secret: String) -> Self {
        Self {
            client: AgentServiceClient::new(server.channel.clone()),
            secret,
        }
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.secret);
        request
            .metadata_mut()
            .insert("authorization", bearer.parse().unwrap());
        request
    }

    /// Registers on a state folder that is told apart by one digit.
    pub(crate) async fn register(
        &self,
        folder: char,
        gpus: &[&str],
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        self.register_at(folder, gpus, "").await
    }

    /// The same for one that other hosts reach.
    pub(crate) async fn register_at(
        &self,
        folder: char,
        gpus: &[&str],
        gang_address: &str,
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        self.register_for(folder, gpus, gang_address, Some(1_080_000))
            .await
    }

    /// The same for so many millionths of a dollar a GPU and hour.
    pub(crate) async fn register_for(
        &self,
        folder: char,
        gpus: &[&str],
        gang_address: &str,
        price: Option<u64>,
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        let labels = &[];
        self.register_with(folder, gpus, gang_address, price, labels)
            .await
    }

    /// The same with these labels.
    pub(crate) async fn register_with(
        &self,
        folder: char,
        gpus: &[&str],
        gang_address: &str,
        price: Option<u64>,
        labels: &[(&str, &str)],
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        let labels = labels.iter();
        let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let replays = gpus.iter().all(|gpu| *gpu == "replay");
        let trainer = if replays {
            v1::Trainer::Replay
        } else {
            v1::Trainer::Simpletuner
        };
        let request = v1::RegisterWorkerRequest {
            instance: instance(folder),
            gpus: gpus.iter().map(|gpu| (*gpu).to_owned()).collect(),
            trainers: vec![trainer.into()],
            price_per_gpu_hour_usd_micros: price,
            version: "test".to_owned(),
            gang_address: gang_address.to_owned(),
            labels: labels.collect(),
            ..v1::RegisterWorkerRequest::default()
        };
        Ok(self
            .client
            .clone()
            .register_worker(self.call(request))
            .await?
            .into_inner())
    }

    pub(crate) async fn attach(&self, worker: String, folder: char) -> Result<Worker, Status> {
        self.attach_as(worker, folder, false).await
    }

    /// The same for one that was asked to stop.
    pub(crate) async fn attach_leaving(
        &self,
        worker: String,
        folder: char,
    ) -> Result<Worker, Status> {
        self.attach_as(worker, folder, true).await
    }

    async fn attach_as(
        &self,
        worker: String,
        folder: char,
        leaving: bool,
    ) -> Result<Worker, Status> {
        let (reports, stream) = mpsc::channel(64);
        let hello = v1::Hello {
            worker,
            instance: instance(folder),
            leaving,
        };
        reports
            .send(report(v1::attach_request::Report::Hello(hello)))
            .await
            .unwrap();
        let orders = self
            .client
            .clone()
            .attach(self.call(ReceiverStream::new(stream)))
            .await?
            .into_inner();
        Ok(Worker {
            agent: self.clone(),
            reports,
            orders,
        })
    }

    pub(crate) async fn files(&self, job: &str, epoch: u64) -> Result<Vec<v1::JobFile>, Status> {
        Ok(self.handed(job, epoch).await?.files)
    }

    /// The files of a job and its credentials.
    pub(crate) async fn handed(
        &self,
        job: &str,
        epoch: u64,
    ) -> Result<v1::GetAssignmentFilesResponse, Status> {
        let request = v1::GetAssignmentFilesRequest {
            job: job.to_owned(),
            epoch,
        };
        Ok(self
            .client
            .clone()
            .get_assignment_files(self.call(request))
            .await?
            .into_inner())
    }

    pub(crate) async fn contribute(
        &self,
        id: [u8; 16],
        samples: Vec<v1::Sample>,
    ) -> Result<(), Status> {
        let request = v1::ContributeSamplesRequest {
            id: id.to_vec(),
            samples,
        };
        self.client
            .clone()
            .contribute_samples(self.call(request))
            .await
            .map(|_| ())
    }
}

/// An attached worker.
pub(crate) struct Worker {
    pub(crate) agent: Agent,
    reports: mpsc::Sender<v1::AttachRequest>,
    orders: Streaming<v1::AttachResponse>,
}

impl Worker {
    pub(crate) async fn say(&self, said: v1::attach_request::Report) {
        self.reports.send(report(said)).await.unwrap();
    }

    /// The next order that `pick` wants.
    pub(crate) async fn told<T>(
        &mut self,
        pick: impl Fn(v1::attach_response::Order) -> Option<T>,
    ) -> T {
        let looking = async {
            loop {
                let order = self
                    .orders
                    .message()
                    .await
                    .unwrap()
                    .expect("the session goes on");
                if let Some(picked) = order.order.and_then(&pick) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, looking).await.expect("the order comes")
    }

    pub(crate) async fn assigned(&mut self) -> v1::Assignment {
        self.told(|order| match order {
            v1::attach_response::Order::Assign(assignment) => Some(*assignment),
            _ => None,
        })
        .await
    }

    /// Says nothing more; the last word of the server, whose end of the stream comes behind it.
    pub(crate) async fn farewell(self) -> Result<Option<v1::Parting>, Code> {
        drop(self.reports);
        let mut orders = self.orders;
        let mut last = None;
        while let Some(order) = timeout(PATIENCE, orders.message())
            .await
            .unwrap()
            .map_err(|status| status.code())?
        {
            if let Some(v1::attach_response::Order::Parting(parting)) = order.order {
                last = v1::Parting::try_from(parting).ok();
            }
        }
        Ok(last)
    }

    /// The word or the status with which the session ends.
    pub(crate) async fn parted(&mut self) -> Result<v1::Parting, Status> {
        loop {
            match timeout(PATIENCE, self.orders.message()).await.unwrap()? {
                Some(v1::AttachResponse {
                    order: Some(v1::attach_response::Order::Parting(parting)),
                }) => {
                    return Ok(v1::Parting::try_from(parting).unwrap());
                }
                Some(_) => {}
                None => panic!("a session ends with a word"),
            }
        }
    }

    /// Runs an attempt to its good end.
    pub(crate) async fn succeed(&mut self, assignment: &v1::Assignment) {
        use v1::attach_request::Report;
        let (job, epoch) = (assignment.job.clone(), assignment.epoch);
        self.say(Report::Started(v1::AttemptStarted {
            job: job.clone(),
            epoch,
            begun_step: None,
        }))
        .await;
        self.say(Report::Checkpointed(v1::AttemptCheckpointed {
            job: job.clone(),
            epoch,
            step: 50,
        }))
        .await;
        let outcome = v1::Outcome::Succeeded.into();
        self.say(Report::Ended(v1::AttemptEnded {
            job,
            epoch,
            outcome,
            step: 150,
            detail: String::new(),
            lease_lost: false,
            credentials_gone: false,
        }))
        .await;
        let acknowledged = self.told(|order| match order {
            v1::attach_response::Order::Acknowledged(known) => Some(known.epoch),
            _ => None,
        });
        assert_eq!(acknowledged.await, epoch);
    }
}

fn report(report: v1::attach_request::Report) -> v1::AttachRequest {
    v1::AttachRequest {
        report: Some(report),
    }
}

pub(crate) fn instance(folder: char) -> String {
    folder.to_string().repeat(32)
}
