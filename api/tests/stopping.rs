//! A server that is stopped while it still works for somebody.

use serde_json::json;
use stepcast_estimator::import::{Mapping, TRAINING_HEADER};
use stepcast_proto::v1::RunQueryRequest;
use tonic::{Code, Status};

use crate::http::ask;
use crate::support::{Server, reason};

/// Enough rows for a join that nobody sees the end of.
const ROWS: u32 = 1_000;

const ENDLESS: &str = "SELECT count(*) FROM training_steps a, training_steps b, training_steps c \
                       WHERE a.avg_step_ms + b.avg_step_ms + c.avg_step_ms = 7";

impl Server {
    async fn said_of(&self, sql: &str) -> Option<Status> {
        let request = RunQueryRequest {
            sql: sql.to_owned(),
            max_rows: 0,
        };
        self.records().run_query(request).await.err()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_statement_is_told_that_the_server_stops() {
    let server = Server::start().await;
    let mut file = format!("{TRAINING_HEADER}\n");
    for row in 0..ROWS {
        file += &format!("flux.dev/lora,h100,1.0,4,1,bf16,int8,{},120\n", 300 + row);
    }
    let figures = server
        .estimator
        .import("figures", Mapping::Records, file.as_bytes());
    assert_eq!(figures.await.unwrap().stored, ROWS as usize);
    let (port, mut records) = (server.port, server.records());
    let over_http = tokio::spawn(async move {
        let question = json!({"sql": ENDLESS});
        ask(port, "POST", "/v1/sql", None, Some(&question)).await
    });
    let over_grpc = tokio::spawn(async move {
        let request = RunQueryRequest {
            sql: ENDLESS.to_owned(),
            max_rows: 0,
        };
        records.run_query(request).await.map(drop)
    });
    // Both run once there is no turn for a third.
    while server
        .said_of("SELECT 1 AS one")
        .await
        .is_none_or(|status| reason(&status) != "BUSY")
    {}
    server.stop().await;
    let told = over_grpc.await.unwrap().unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "STOPPED")
    );
    let told = over_http.await.unwrap();
    assert_eq!(
        (told.status, &told.json()["code"]),
        (503, &json!("STOPPED"))
    );
}
