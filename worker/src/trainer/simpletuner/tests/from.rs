//! Which checkpoint a launch goes on from, and what is said where the newest one is not here.

use super::*;

/// What one host writes the others read: the caches lie beside the results, and so must the checkpoint.
#[test]
fn the_hosts_of_a_gang_share_their_outputs() {
    let host = Host::new();
    let files = [
        file(FileRole::Config, "config.json", config()),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    let prepare = |step| {
        let gang = Some(second_of(2, step));
        host.prepare_as(gang, &files, &[], Length::Steps(1))
    };
    let (_, written) = prepare(0).unwrap();
    let cache = host.root.path().join("outputs/jcats/cache-7");
    assert_eq!(written["cache_dir"], json!(cache));
    let refused = prepare(40).unwrap_err();
    assert_eq!(refused.failure(), Failure::LaunchFailed);
    assert!(refused.to_string().contains("--outputs"), "{refused}");
    host.checkpoint("checkpoint-40", &[".guard"]);
    let (_, written) = prepare(40).unwrap();
    assert_eq!(written["resume_from_checkpoint"], "checkpoint-40");
    // The newest one there is a rolling one, and it is the newest whether its word has arrived or not.
    host.checkpoint("checkpoint-60-rolling", &[".guard"]);
    for step in [40, 60] {
        let (_, written) = prepare(step).unwrap();
        assert_eq!(written["resume_from_checkpoint"], "checkpoint-60-rolling");
    }
    // Nothing begins from another step than the other hosts do.
    host.checkpoint("checkpoint-80", &["training_state.json"]);
    assert!(prepare(80).is_err());
}

/// A host that has no checkpoint so new says from where it begins instead: its outputs may be its own.
#[test]
fn a_launch_says_what_it_goes_on_from() {
    let host = Host::new();
    let files = [
        file(FileRole::Config, "config.json", config()),
        file(FileRole::DataLoader, "multidatabackend.json", host.loader()),
    ];
    let launch = || host.prepare(&files, Length::Steps(1)).unwrap().0;
    assert_eq!((launch().from, launch().lacks(0)), (0, None));
    let said = launch().lacks(120).unwrap();
    assert!(
        said.contains("step 120") && said.ends_with("begins anew"),
        "{said}"
    );
    host.checkpoint("checkpoint-40", &[".guard"]);
    assert_eq!((launch().from, launch().lacks(40)), (40, None));
    assert_eq!(
        launch().lacks(20),
        None,
        "a newer one of which nobody has heard"
    );
    let said = launch().lacks(120).unwrap();
    assert!(said.ends_with("goes on from step 40"), "{said}");
}
