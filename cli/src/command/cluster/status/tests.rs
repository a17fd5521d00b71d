//! What is said of a cluster, by who is here, away or behind.

use super::*;

fn node(id: u64, role: &str, reachable: bool) -> Node {
    Node::known(ClusterNode {
        node_id: id,
        role: role.to_owned(),
        reachable,
        matched_index: 90 + id,
        ..ClusterNode::default()
    })
}

fn view(nodes: Vec<Node>) -> View {
    View {
        whole: GetClusterStatusResponse {
            node_id: 1,
            leader_id: 1,
            leading: true,
            commit_index: 100,
            health: "SERVING".to_owned(),
            ..GetClusterStatusResponse::default()
        },
        nodes,
    }
}

#[test]
fn what_can_be_lost_counts_voters_that_are_there() {
    let spare = |nodes| view(nodes).spare();
    let here = |id| node(id, "VOTER", true);
    let gone = |id| node(id, "VOTER", false);
    assert_eq!(spare(vec![here(1)]), Some(0));
    assert_eq!(spare(vec![here(1), here(2), here(3)]), Some(1));
    assert_eq!(spare(vec![here(1), here(2), gone(3)]), Some(0));
    assert_eq!(spare(vec![here(1), gone(2), gone(3)]), None);
    assert_eq!(
        spare(vec![here(1), here(2), node(3, "LEARNER", true)]),
        Some(0),
        "two that vote can lose nobody"
    );
}

#[test]
fn who_is_far_behind_is_no_spare_and_keeps_the_cluster_from_being_healthy() {
    let mut view = view([1, 2, 3].map(|id| node(id, "VOTER", true)).into());
    view.whole.commit_index = 6_517;
    for node in &mut view.nodes {
        node.known.matched_index = 6_517;
        node.known.caught_up = Some(true);
    }
    assert_eq!(view.spare(), Some(1));
    assert!(view.state().contains("healthy") && view.remarks().is_empty());
    // It waits for a snapshot, of a log that is short or long.
    view.nodes[2].known.matched_index = 6_500;
    view.nodes[2].known.caught_up = Some(false);
    assert_eq!(view.spare(), Some(0));
    assert!(view.state().contains("waiting for a node to catch up"));
    assert_eq!(
        view.remarks(),
        ["n3 is 17 entries behind: stop no other node before it has caught up"]
    );
    // It has everything, and its leader has not heard so.
    view.nodes[2].known.matched_index = 6_517;
    assert_eq!(
        view.remarks(),
        ["n3 has just come back: stop no other node before its leader has heard how far it is"]
    );
    // Its log begins behind the snapshot that it still reads in; and an older leader says nothing.
    view.nodes[2].known.caught_up = None;
    view.nodes[2].own = Some(GetClusterStatusResponse {
        applied_index: 11,
        ..GetClusterStatusResponse::default()
    });
    assert_eq!(view.behind(&view.nodes[2]), Some(6_506));
    assert_eq!(view.spare(), Some(0));
    assert_eq!(view.json()["nodes"][2]["caught_up"], false);
    // The way between it and the leader may be cut, and not the one from here.
    view.nodes[2].known.reachable = false;
    assert_eq!(
        view.remarks(),
        ["n3 answers here, and n1 does not reach it: see to the way between them"]
    );
    // Who learns only is missed by nobody.
    view.nodes[2].known.role = "LEARNER".to_owned();
    assert!(view.state().contains("healthy"));
    assert_eq!(
        view.remarks(),
        [
            "n3 has no vote yet, 6,506 entries behind: it gets one as soon as it keeps up with what is written"
        ]
    );
}

/// Its disk hangs: it is heard and shown, and can be counted on by nobody.
#[test]
fn who_cannot_write_is_no_spare_whether_it_leads_or_not() {
    for stalled in [0, 1] {
        let mut view = view([1, 2, 3].map(|id| node(id, "VOTER", true)).into());
        let words =
            "the log cannot be written at the moment: its disk has not answered for 12 seconds";
        let own = GetClusterStatusResponse {
            node_id: stalled as u64 + 1,
            health: "LOG_STALLED".to_owned(),
            detail: words.to_owned(),
            applied_index: 90,
            ..view.whole.clone()
        };
        if stalled == 0 {
            view.whole = own.clone();
        }
        // The new leader does not hear it any more: what it would answer waits for its disk.
        view.nodes[1].known.reachable = stalled == 0;
        view.nodes[stalled].own = Some(own);
        assert_eq!(view.spare(), Some(0));
        assert!(!view.state().contains("healthy"), "{}", view.state());
        assert_eq!(view.remarks(), [format!("n{}: {words}", stalled + 1)]);
    }
}

#[test]
fn without_a_majority_nobody_is_told_to_remove_a_node() {
    let gone = |id| node(id, "VOTER", false);
    let mut view = view(vec![gone(1), node(2, "VOTER", true), gone(3)]);
    view.nodes[0].known.peer_address = "10.0.0.1:7071".to_owned();
    view.whole.node_id = 2;
    view.whole.leader_id = 0;
    let said = view.remarks().join("\n");
    assert!(said.starts_with("too few of the nodes that vote answer"));
    assert!(said.contains("stepcast cluster restore") && !said.contains("cluster remove"));
    // They may only have moved, which costs nothing; a backup costs what came after it.
    assert!(said.find("--join") < said.find("stepcast cluster restore"));
    assert!(said.contains("n1 does not answer at 10.0.0.1:7071: start it"));
    assert!(said.contains("n3 does not answer: start it"));
}

#[test]
fn what_an_older_node_does_not_say_is_left_out() {
    let mut view = view(vec![node(1, "VOTER", true)]);
    view.whole.snapshot_index = 18_000;
    assert_eq!(
        (view.snapshot(), view.tables()),
        ("snapshot 18,000".to_owned(), String::new())
    );
    view.whole.snapshot_bytes = Some(1_200_000);
    view.whole.snapshot_age_seconds = Some(10_800);
    view.whole.store_put_p95_us = Some(84_000);
    assert_eq!(view.snapshot(), "snapshot 18,000 (1.2 MB, 3h 00m ago)");
    assert_eq!(view.tables(), "   tables ok (put p95 84 ms)");
}

/// The staging area may lie on another disk than the log, whose room is told by itself.
#[test]
fn a_staging_area_without_room_is_said_by_each_node_that_sees_it() {
    let mut view = view([1, 2].map(|id| node(id, "VOTER", true)).into());
    assert!(view.remarks().is_empty());
    view.nodes[1].own = Some(GetClusterStatusResponse {
        staging_trouble: "its disk is nearly full".to_owned(),
        ..GetClusterStatusResponse::default()
    });
    assert_eq!(
        view.remarks(),
        ["n2: the staging area: its disk is nearly full"]
    );
}

#[test]
fn a_node_that_holds_the_format_back_is_named() {
    let mut view = view([1, 2, 3].map(|id| node(id, "VOTER", true)).into());
    for (node, format) in view.nodes.iter_mut().zip([3, 2, 0]) {
        node.known.log_format = format;
    }
    let said = view.remarks().join("\n");
    assert!(said.starts_with("n2 goes along with log format 2"));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(view.json()["nodes"][1]["log_format"], 2);
    view.nodes[0].known.log_format = 2;
    assert!(view.remarks().is_empty());
}

#[test]
fn the_format_that_all_nodes_are_held_at_is_named() {
    let mut view = view([1, 2, 3].map(|id| node(id, "VOTER", true)).into());
    for node in &mut view.nodes {
        node.known.log_format = 2;
    }
    // An older program does not say what it knows.
    for (known, said) in [(0, None), (2, None), (3, Some("log format 2 and know 3"))] {
        view.nodes[0].own = Some(GetClusterStatusResponse {
            commit_index: 100,
            applied_index: 100,
            newest_log_format: known,
            ..GetClusterStatusResponse::default()
        });
        let lines = view.remarks();
        assert_eq!(lines.len(), usize::from(said.is_some()), "{lines:?}");
        assert!(
            lines.concat().contains(said.unwrap_or_default()),
            "{lines:?}"
        );
    }
    // One that is not held is named alone, or the one that is.
    view.nodes[2].known.log_format = 3;
    assert!(
        view.remarks()
            .iter()
            .all(|line| line.contains("goes along"))
    );
}

#[test]
fn a_node_that_is_away_is_said_with_what_to_do() {
    let here = |id| node(id, "VOTER", true);
    let view = view(vec![here(1), node(2, "VOTER", false), here(3)]);
    let remarks = view.remarks();
    assert!(
        remarks[0].contains("stepcast cluster remove n2"),
        "{remarks:?}"
    );
    assert_eq!(view.behind(&view.nodes[1]), Some(8));
}
