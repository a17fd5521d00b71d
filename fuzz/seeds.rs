//! Writes the seeds in `fuzz/seeds`: small inputs of every target, made by what writes such bytes for real.
//!
//! To be run again when a format has changed: the binary `seeds` lies where `fuzz/run` has built it, and is started in the
//! repository's folder. It is built as a target as well, since everything it is made of is instrumented for libFuzzer.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use prost::bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::members::{Member, Members};
use stepcast_cluster::snapshot::{Header, Snapshots};
use stepcast_fuzz::{join, unsealed};
use stepcast_proto::raft::v1::{
    ExchangeRequest, Hello, InstallSnapshotRequest, JoinRequest, JoinResponse, PeerNode, Proof,
    SnapshotHeader,
};
use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sampling, Sharing, Workload};
use stepcast_records::{
    FrameClass, HalfMegapixels, Histogram, Precision, Quantization, Recipe, UsdMicros,
};
use stepcast_scheduler::command::{Placement, PlacementNote};
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, StagingId, TokenHash, WorkerId,
};
use stepcast_scheduler::model::{FailureReason, Inventory, JobSpec, Outcome, TrainerKind};
use stepcast_scheduler::{Command, Envelope, Reply, RequestId, State, codec};

type Failure = Box<dyn std::error::Error>;

libfuzzer_sys::fuzz_target!(init: leave(write_all()), |_data: &[u8]| {});

/// Nothing is fuzzed here.
fn leave(written: Result<(), Failure>) {
    if let Err(error) = &written {
        eprintln!("no seeds are written: {error}");
    }
    std::process::exit(i32::from(written.is_err()));
}

fn write_all() -> Result<(), Failure> {
    let root = Path::new("fuzz/seeds");
    if !root.parent().is_some_and(Path::is_dir) {
        return Err("start this in the repository's folder".into());
    }
    let put = |target: &str, name: &str, bytes: &[u8]| -> Result<(), Failure> {
        let dir = root.join(target);
        fs::create_dir_all(&dir)?;
        Ok(fs::write(dir.join(name), bytes)?)
    };
    let (envelopes, state) = life()?;
    let entries: Vec<Vec<u8>> = envelopes.iter().map(codec::encode).collect();
    put("apply", "life", &join(entries.iter().map(Vec::as_slice)))?;
    for (n, entry) in entries.iter().enumerate() {
        put("apply", &format!("entry-{n:02}"), &join([&entry[..]]))?;
    }
    let chunks: Vec<Vec<u8>> = state.view().chunks().collect();
    put("restore", "chunks", &join(chunks.iter().map(Vec::as_slice)))?;
    put("restore", "whole", &state.snapshot())?;
    put("restore", "empty", &State::new().snapshot())?;

    let dir = tempfile::tempdir()?;
    let header = Header {
        at: Position { index: 9, term: 4 },
        members: members(),
    };
    Snapshots::open(dir.path())?.write(&header, &state.view())?;
    let file = fs::read_dir(dir.path())?.next().ok_or("a file")??;
    let file = fs::read(file.path())?;
    put("snapshot", "file", &file)?;
    put("snapshot", "frames", &join(unsealed(&file)))?;

    for (name, frame) in frames()? {
        put("frame", name, &frame)?;
    }
    let messages: Vec<Vec<u8>> = messages()
        .iter()
        .map(Message::write_to_bytes)
        .collect::<Result<_, _>>()?;
    for (n, message) in messages.iter().enumerate() {
        put("frame", &format!("message-{n:02}"), message)?;
        put("peer", &format!("message-{n:02}"), &join([&message[..]]))?;
    }
    // A node that campaigns, is elected, and hears from another leader later.
    let turns: Vec<&[u8]> = [&[20_u8][..]]
        .into_iter()
        .chain(messages.iter().map(Vec::as_slice))
        .collect();
    put("peer", "turns", &join(turns))?;

    put("token", "token", token().as_bytes())?;
    let mut posts = 0;
    for (name, file) in stepcast_worker::stream::shipped_names() {
        let _ = file;
        let text = stepcast_worker::stream::shipped(name).ok_or("a stream")?;
        let first: Vec<&str> = text.lines().take(12).collect();
        put("stream", name, first.join("\n").as_bytes())?;
        for line in stepcast_worker::stream::read(text)? {
            if let Some(body) = line.body
                && posts < 24
            {
                posts += 1;
                put(
                    "webhook",
                    &format!("{posts:02}"),
                    body.to_string().as_bytes(),
                )?;
            }
        }
    }
    put(
        "output",
        "lines",
        b"\x10Epoch 1: 10%\r\x1b[32mEpoch 1: 20%\x1b[0m\nHF_TOKEN=correct-horse-battery\nend",
    )?;

    let config = fs::read("cli/demo/flux-lora/config.json")?;
    let loader = fs::read("cli/demo/flux-lora/multidatabackend.json")?;
    let files = join([&config[..], &loader[..]]);
    put("configuration", "json", &[&[0][..], &files].concat())?;
    let toml =
        join([&b"model_family = \"sdxl\"\nmodel_type = \"lora\"\nmax_train_steps = 10\n"[..]]);
    put("configuration", "toml", &[&[1][..], &toml].concat())?;
    let env = join([&b"MODEL_FAMILY=flux\nMODEL_TYPE='lora'\nMAX_NUM_STEPS=10\n"[..]]);
    put("configuration", "env", &[&[2][..], &env].concat())?;

    let mut histogram = Histogram::new();
    put("histogram", "empty", &histogram.to_v2_bytes())?;
    for ms in 1..200_u64 {
        histogram.record(Duration::from_millis(ms * ms))?;
    }
    put("histogram", "filled", &histogram.to_v2_bytes())?;
    Ok(())
}

/// A worker and its jobs from the first to the last, and the state that they leave.
fn life() -> Result<(Vec<Envelope>, State), Failure> {
    let mut log = Log::default();
    let token = TokenHash([7; 32]);
    log.put(Command::Barrier {
        version: codec::VERSION,
    });
    log.put(Command::CreateWorkerToken {
        name: "host".parse()?,
        hash: token,
    });
    let inventory = Inventory {
        gpus: vec!["h100".parse()?, "h100".parse()?],
        trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
        labels: BTreeMap::new(),
        price_per_gpu_hour: Some(UsdMicros(2_000_000)),
        address: None,
        outputs: None,
    };
    let instance = InstanceId([9; 16]);
    let Reply::WorkerRegistered { worker } = log.put(Command::RegisterWorker {
        token_hash: token,
        instance,
        inventory,
    }) else {
        return Err("no worker".into());
    };
    let mut jobs = Vec::new();
    for number in 1..=4_u8 {
        let spec = Box::new(spec(number)?);
        match log.put(Command::SubmitJob { spec }) {
            Reply::JobSubmitted { job } => jobs.push(job),
            other => return Err(format!("{other:?}").into()),
        }
    }
    let first = log.place(jobs[0], 1, worker, 0)?;
    let (job, epoch) = (jobs[0], first);
    log.put(Command::StartAttempt { job, epoch });
    log.put(Command::Checkpoint {
        job,
        epoch,
        step: 50,
    });
    log.put(Command::EndAttempt {
        job,
        epoch,
        outcome: Outcome::Succeeded,
        step: 1000,
        detail: String::new(),
    });
    let job = jobs[1];
    let epoch = log.place(job, 1, worker, 0)?;
    log.put(Command::StartAttempt { job, epoch });
    log.put(Command::EndAttempt {
        job,
        epoch,
        outcome: Outcome::Failed(FailureReason::OutOfMemory),
        step: 3,
        detail: "out of memory".into(),
    });
    log.put(Command::CancelJob { job: jobs[2] });
    let job = jobs[3];
    let epoch = log.place(job, 1, worker, 1)?;
    log.put(Command::ExpireLeases {
        expired: vec![(job, epoch)],
    });
    log.put(Command::DrainWorker {
        worker,
        stop_running: true,
    });
    log.put(Command::ResumeWorker { worker });
    log.put(Command::LoseWorker { worker, instance });
    log.put(Command::Sweep);
    Ok((log.envelopes, log.state))
}

#[derive(Default)]
struct Log {
    envelopes: Vec<Envelope>,
    state: State,
}

impl Log {
    fn put(&mut self, command: Command) -> Reply {
        let number = self.envelopes.len() as u64 + 1;
        let request = RequestId([number as u8; 16]);
        let envelope = Envelope::new(1_700_000_000_000 + number * 1000, Some(request), command);
        let applied = self.state.apply(number + 1, &envelope);
        self.envelopes.push(envelope);
        applied.reply.unwrap_or(Reply::Done)
    }

    fn place(
        &mut self,
        job: JobId,
        attempt: u32,
        worker: WorkerId,
        gpu: u8,
    ) -> Result<Epoch, Failure> {
        let placement = Placement {
            job,
            attempt: AttemptNumber(attempt),
            worker,
            gpus: vec![gpu],
            note: PlacementNote::default(),
            others: Vec::new(),
        };
        let reply = self.put(Command::Place {
            placements: vec![placement],
        });
        match reply {
            Reply::Placed { outcomes } => match outcomes[..] {
                [Ok(epoch)] => Ok(epoch),
                _ => Err(format!("{outcomes:?}").into()),
            },
            other => Err(format!("{other:?}").into()),
        }
    }
}

fn spec(number: u8) -> Result<JobSpec, Failure> {
    let workload = Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt").ok_or("a recipe")?,
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).ok_or("a resolution")?,
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(120),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(1_000),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing {
            sampling: Sampling::Uniform,
            ..Sharing::default()
        },
    };
    Ok(JobSpec::new(workload, StagingId([number; 16])))
}

fn members() -> Members {
    let member = |id: u64| Member {
        id,
        peer_address: format!("10.0.0.{id}:7071"),
        client_address: format!("http://10.0.0.{id}:7070"),
        key: [id as u8; 32],
    };
    Members {
        voters: [1, 2, 3].into(),
        learners: [4].into(),
        nodes: (1..=4).map(|id| (id, member(id))).collect(),
        last_id: 4,
        ..Members::default()
    }
}

/// One of each kind that nodes 2 and 3 send to node 1.
fn messages() -> Vec<Message> {
    let kinds = [
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgHeartbeat,
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgTimeoutNow,
        MessageType::MsgTransferLeader,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
    ];
    let mut messages: Vec<Message> = kinds
        .into_iter()
        .zip([2, 3].into_iter().cycle())
        .map(|(kind, from)| {
            let mut message = Message {
                from,
                to: 1,
                term: 2,
                log_term: 1,
                index: 1,
                commit: 1,
                ..Message::default()
            };
            message.set_msg_type(kind);
            message
        })
        .collect();
    let change = ConfChangeV2::default().write_to_bytes().unwrap_or_default();
    let entries = [
        (EntryType::EntryNormal, Vec::new()),
        (EntryType::EntryNormal, b"entry".to_vec()),
        (EntryType::EntryConfChangeV2, change),
    ];
    let entries = entries.into_iter().zip(2..).map(|((kind, data), index)| {
        let mut entry = Entry {
            index,
            term: 2,
            data: data.into(),
            ..Entry::default()
        };
        entry.set_entry_type(kind);
        entry
    });
    messages[5].set_entries(entries.collect::<Vec<_>>().into());
    messages[8].context = vec![7; 16].into();
    messages[9].context = vec![7; 16].into();
    messages
}

fn frames() -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let hello = Hello {
        cluster_id: 0xc1,
        from: 2,
        to: 1,
        log_format: 2,
        version: "0.1.0".into(),
        peer_address: "10.0.0.2:7071".into(),
        client_address: "http://10.0.0.2:7070".into(),
        proofs: vec![Proof {
            generation: 3,
            tag: vec![7; 32].into(),
        }],
    };
    let mut snapshot = Message {
        from: 2,
        to: 1,
        term: 5,
        ..Message::default()
    };
    snapshot.set_msg_type(MessageType::MsgSnapshot);
    let metadata = snapshot.mut_snapshot().mut_metadata();
    metadata.index = 9;
    metadata.term = 4;
    metadata.mut_conf_state().voters = vec![1, 2, 3];
    let batch: Vec<Bytes> = messages()
        .iter()
        .map(|message| message.write_to_bytes().map(Bytes::from))
        .collect::<Result<_, _>>()?;
    Ok(vec![
        (
            "hello",
            ExchangeRequest {
                hello: Some(hello.clone()),
                ..ExchangeRequest::default()
            }
            .encode_to_vec(),
        ),
        (
            "batch",
            ExchangeRequest {
                messages: batch,
                ping: 12,
                ..ExchangeRequest::default()
            }
            .encode_to_vec(),
        ),
        (
            "snapshot",
            InstallSnapshotRequest {
                header: Some(SnapshotHeader {
                    hello: Some(hello),
                    message: snapshot.write_to_bytes()?.into(),
                    length: 1000,
                    goes_on: true,
                }),
                data: Bytes::from_static(b"piece"),
            }
            .encode_to_vec(),
        ),
        (
            "join",
            JoinRequest {
                token: token(),
                public_key: vec![0x30; 44].into(),
                peer_address: "10.0.0.4:7071".into(),
                client_address: "http://10.0.0.4:7070".into(),
                log_format: 2,
                store: "s3://store".into(),
                staging: "s3://staging".into(),
            }
            .encode_to_vec(),
        ),
        (
            "joined",
            JoinResponse {
                cluster_id: 0xc1,
                node_id: 4,
                certificate: vec![0x30; 400].into(),
                authority: vec![0x30; 400].into(),
                authority_key: vec![0x30; 83].into(),
                nodes: vec![PeerNode {
                    id: 1,
                    peer_address: "10.0.0.1:7071".into(),
                    client_address: "http://10.0.0.1:7070".into(),
                    key: vec![1; 32].into(),
                }],
            }
            .encode_to_vec(),
        ),
    ])
}

/// The shape of a token; nobody is let in by it.
fn token() -> String {
    format!("stepcast-join-1.{}Q", "A".repeat(85))
}
