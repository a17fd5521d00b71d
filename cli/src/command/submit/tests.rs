//! Tests of what is sent for a submission, and of what is told where nobody answers.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::client::Address;

#[test]
fn doubt_names_the_id() {
    let unknown = Failure::new(Exit::Unknown, "no answer within 10 seconds");
    let hint = in_doubt(unknown.clone(), "00ff", None).hint.expect("hint");
    assert!(hint.ends_with(" --request-id 00ff"), "{hint}");
    // Nothing was sent, or it was a question.
    let silent = Failure::new(Exit::Unreachable, "no server answers");
    assert_eq!(in_doubt(silent.clone(), "00ff", None), silent);
    // What was a span from now is another moment when it is asked again.
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let wishes = JobWishes {
        not_before_time: at(1_768_780_800),
        finish_by_time: at(1_768_784_400),
        ..JobWishes::default()
    };
    let hint = in_doubt(unknown, "00ff", Some(&wishes)).hint.expect("hint");
    let sent = " --not-before 2026-01-19T00:00:00.000Z --finish-by 2026-01-19T01:00:00.000Z";
    assert!(hint.ends_with(sent), "{hint}");
}

#[test]
fn an_id_that_was_used_is_no_reason_to_draw_another() {
    let mut reused = Failure::refused("this request id was used for something else")
        .hint("draw a new request id for every new request");
    reused.reason = "REQUEST_ID_REUSED".to_owned();
    let hint = in_doubt(reused, "00ff", None).hint.expect("hint");
    assert!(hint.contains("see `stepcast jobs`"), "{hint}");
}

/// A server that hangs up on each caller once it has read this.
async fn hangs_up_behind(text: &'static str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut read = Vec::new();
            while !read.windows(text.len()).any(|part| part == text.as_bytes()) {
                if caller.read_buf(&mut read).await.is_ok_and(|read| read == 0) {
                    break;
                }
            }
        }
    });
    let address = Address {
        server,
        ..Address::default()
    };
    Client::connect(&address).await.expect("it is there")
}

#[tokio::test]
async fn only_what_is_to_be_kept_may_have_been_taken_where_the_server_is_lost() {
    const ID: &str = "00112233445566778899aabbccddeeff";
    let client = hangs_up_behind(ID).await;
    let submission = Submission {
        files: Vec::new(),
        title: "cats".to_owned(),
        missing: Vec::new(),
    };
    for (validate_only, exit) in [(false, Exit::Unknown), (true, Exit::Unreachable)] {
        let job = SubmitJobRequest {
            request_id: ID.to_owned(),
            validate_only,
            ..SubmitJobRequest::default()
        };
        let sent = send(&client, job, &submission).await;
        assert_eq!(sent.expect_err("it hangs up").exit, exit);
        let array = SubmitArrayRequest {
            request_id: ID.to_owned(),
            validate_only,
            ..SubmitArrayRequest::default()
        };
        let sent = sweep::send(&client, array).await;
        assert_eq!(sent.expect_err("it hangs up").exit, exit);
    }
}
