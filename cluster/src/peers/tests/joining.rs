//! New nodes join: by a token, through whoever leads, and again after a crash.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use stepcast_scheduler::model::{Generation, Secret};

use super::support::{CLUSTER, Endpoint, append, cluster, indices};
use crate::consensus::Transport;
use crate::identity::Identity;
use crate::peers::authority::Authority;
use crate::peers::credentials::Credentials;
use crate::peers::{JoinConfig, JoinError, JoinToken, NotAdmitted, join};

fn config(servers: &[&Endpoint], token: JoinToken, data: &Path) -> JoinConfig {
    JoinConfig {
        servers: servers.iter().map(|e| e.address.to_string()).collect(),
        token,
        data_dir: data.to_path_buf(),
        peer_address: "127.0.0.1:1".into(),
        client_address: "http://127.0.0.1:2".into(),
        log_format: 2,
        store: "s3://store".into(),
        staging: "s3://staging".into(),
    }
}

fn token(node: &Endpoint) -> JoinToken {
    let generation = node.desk.generations.lock().last().copied();
    let valid_for = Duration::from_secs(60);
    node.peers
        .mint_token(generation.as_ref(), valid_for)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_takes_part() {
    let (_, nodes) = cluster(2);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let joined = join(config(&[&nodes[0]], token(&nodes[1]), &data))
        .await
        .unwrap();
    assert_eq!((joined.node_id, joined.cluster_id), (3, CLUSTER));
    assert_eq!(joined.others, [nodes[0].peers.me(), nodes[1].peers.me()]);
    let identity = Identity::open(&data, None).unwrap();
    assert_eq!(identity.known(), joined.others);
    let credentials = Credentials::open(&data, &identity).unwrap();
    for file in fs::read_dir(data.join("tls")).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!data.join("tls.joining").exists());
    let third = Endpoint::start(3, credentials);
    third.peers.shared.connect(1, &nodes[0].address.to_string());
    third.peers.send(vec![append(3, 1, 77, 1)]);
    nodes[0].ear.hears(|told| indices(told) == [77]).await;
    // Whoever has joined can let others in.
    let fourth = dir.path().join("fourth");
    let joined = join(config(&[&nodes[0]], token(&third), &fourth))
        .await
        .unwrap();
    assert_eq!(joined.node_id, 4);
    let again = join(config(&[&nodes[0]], token(&third), &fourth)).await;
    assert!(matches!(again, Err(JoinError::Exists)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_died_while_joining_gets_the_same_id() {
    let (_, nodes) = cluster(1);
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[&nodes[0]], token(&nodes[0]), dir.path());
    // Dead after asking, before the answer: only the key is there.
    let key = Credentials::joining_key(dir.path()).unwrap();
    let first = join(config.clone()).await.unwrap();
    assert_eq!(first.node_id, 2);
    // Dead after the keys were written, before the identity was.
    fs::remove_file(dir.path().join("node.json")).unwrap();
    assert!(matches!(
        Identity::open(dir.path(), None),
        Err(crate::identity::Error::HalfJoined)
    ));
    assert_eq!(join(config.clone()).await.unwrap(), first);
    // Dead between the two names of the directory.
    fs::remove_file(dir.path().join("node.json")).unwrap();
    fs::rename(dir.path().join("tls"), dir.path().join("tls.joining")).unwrap();
    assert_eq!(join(config).await.unwrap(), first);
    let kept = fs::read(dir.path().join("tls/node.key")).unwrap();
    assert_eq!(kept, key.serialized_der());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_to_the_leader_and_waits_for_one() {
    let (_, nodes) = cluster(2);
    let leader = Some(nodes[1].address.to_string());
    *nodes[0].desk.instead.lock() = Some(NotAdmitted::NotLeader {
        peer_address: leader,
    });
    let dir = tempfile::tempdir().unwrap();
    let joined = join(config(&[&nodes[0]], token(&nodes[0]), dir.path())).await;
    assert_eq!(joined.unwrap().node_id, 3);
    // Nobody leads, and then somebody does.
    *nodes[0].desk.instead.lock() = Some(NotAdmitted::NotLeader { peer_address: None });
    let other = tempfile::tempdir().unwrap();
    let asking = tokio::spawn(join(config(&[&nodes[0]], token(&nodes[0]), other.path())));
    while !other.path().join("tls.joining").exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    *nodes[0].desk.instead.lock() = None;
    assert_eq!(asking.await.unwrap().unwrap().node_id, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_and_wrong_nodes_are_refused_in_a_sentence() {
    let (authority, nodes) = cluster(1);
    let dir = tempfile::tempdir().unwrap();
    let refused = async |token: JoinToken| {
        let error = join(config(&[&nodes[0]], token, dir.path()))
            .await
            .unwrap_err();
        let JoinError::Refused { why, .. } = error else {
            panic!("{error:?}");
        };
        why
    };
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    let expired = JoinToken::mint(&authority, None, long_ago, Duration::from_secs(10)).unwrap();
    assert_eq!(
        refused(expired).await,
        "the join token has expired: make another with `stepcast cluster token`, and check this host's clock"
    );
    // Made by somebody who has seen the authority's certificate, and not its key.
    let key = Authority::found(CLUSTER).unwrap();
    let guess = Authority::of(CLUSTER, authority.certificate().to_vec(), key.key()).unwrap();
    let forged = JoinToken::mint(&guess, None, SystemTime::now(), Duration::from_secs(60)).unwrap();
    assert_eq!(
        refused(forged).await,
        "the join token was not made by a member of this cluster, or a node was removed or the secret renewed since: make \
         another with `stepcast cluster token`"
    );
    let sentence = "the store is s3://other here";
    *nodes[0].desk.instead.lock() = Some(NotAdmitted::Refused(sentence.into()));
    assert_eq!(refused(token(&nodes[0])).await, sentence);
    assert!(!dir.path().join("node.json").exists());
}

fn generation(number: u8) -> Option<Generation> {
    Some(Generation {
        number: number.into(),
        secret: Secret([number; 32]),
    })
}

/// It asks the others before it says anything of a token that it does not know, and before it takes one that it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_behind_calls_no_good_token_bad_and_no_bad_one_good() {
    let (authority, nodes) = cluster(1);
    *nodes[0].desk.generations.lock() = generation(1).into_iter().collect();
    *nodes[0].desk.newest.lock() = generation(2);
    let dir = tempfile::tempdir().unwrap();
    let made_in = |generation: Option<Generation>| {
        let (now, valid_for) = (SystemTime::now(), Duration::from_secs(60));
        let token = JoinToken::mint(&authority, generation.as_ref(), now, valid_for).unwrap();
        join(config(&[&nodes[0]], token, dir.path()))
    };
    // With the authority's key alone, with the secret of before, and with a guess.
    for older in [None, generation(1), generation(3)] {
        let error = made_in(older).await.unwrap_err();
        assert!(
            matches!(&error, JoinError::Refused { why, .. } if why.contains("was not made by a member")),
            "{error}"
        );
    }
    assert_eq!(made_in(generation(2)).await.unwrap().node_id, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_the_token_does_not_name_is_told_nothing() {
    let (_, nodes) = cluster(1);
    let other = Authority::found(CLUSTER).unwrap();
    let token = JoinToken::mint(&other, None, SystemTime::now(), Duration::from_secs(60)).unwrap();
    let tls = crate::peers::tls::joiner(&token).unwrap();
    let watch = crate::peers::dial::Watch::Pings;
    let error = crate::peers::dial::dial(&nodes[0].address.to_string(), None, tls, watch)
        .await
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .ends_with("has not proved that it belongs to the cluster"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_cluster_is_said_to_be_one_at_once() {
    let (_, nodes) = cluster(1);
    let other = Authority::found(CLUSTER + 1).unwrap();
    let token = JoinToken::mint(&other, None, SystemTime::now(), Duration::from_secs(60)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Far sooner than joining is given up.
    let asked = join(config(&[&nodes[0]], token.clone(), dir.path()));
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
    let error = answer.unwrap().unwrap_err();
    assert!(matches!(&error, JoinError::OtherCluster(_)), "{error}");
    assert!(!dir.path().join("node.json").exists());
}

#[test]
fn a_founder_s_keys_are_made_once_and_checked_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path(), None).unwrap();
    let first = Credentials::open(dir.path(), &identity).unwrap();
    let again = Credentials::open(dir.path(), &identity).unwrap();
    assert_eq!(again.key_hash(), first.key_hash());
    assert_eq!(
        again.authority().fingerprint(),
        first.authority().fingerprint()
    );
    // Another node's certificate beside this one's key.
    let key = crate::peers::authority::new_key().unwrap();
    let other = again.authority().certify(identity.node_id, &key).unwrap();
    fs::write(dir.path().join("tls/node.der"), &other).unwrap();
    let error = Credentials::open(dir.path(), &identity).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the certificate is of another key"),
        "{error}"
    );
    for (file, says) in [("node.der", "is missing"), ("authority.key", "is missing")] {
        fs::remove_file(dir.path().join("tls").join(file)).unwrap();
        let error = Credentials::open(dir.path(), &identity).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    // Keys are never made anew for a node that others know: one that has had a log,
    let founder = tempfile::tempdir().unwrap();
    let mut identity = Identity::open(founder.path(), None).unwrap();
    Credentials::open(founder.path(), &identity).unwrap();
    identity.note_log(founder.path()).unwrap();
    Credentials::open(founder.path(), &identity).unwrap();
    fs::remove_dir_all(founder.path().join("tls")).unwrap();
    let error = Credentials::open(founder.path(), &identity).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    assert!(!founder.path().join("tls").exists());
    // or one that has joined.
    let joined = tempfile::tempdir().unwrap();
    let met = crate::members::Member {
        id: 1,
        peer_address: "a:1".into(),
        client_address: String::new(),
        key: [1; 32],
    };
    let identity = Identity::join(joined.path(), 2, 5, &[met]).unwrap();
    let error = Credentials::open(joined.path(), &identity).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}
