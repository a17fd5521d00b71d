//! Arrow Flight SQL as drivers use it: Arrow's own client, and ADBC's from Python where installed.

use std::collections::BTreeSet;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    Any, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandStatementQuery, CommandStatementUpdate, ProstMessageExt, SqlInfo,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, Ticket};
use axum::body::Bytes;
use futures::TryStreamExt;
use prost::Message;
use stepcast_api::{AccessToken, ApiConfig};
use stepcast_estimator::arrow::array::{AsArray, RecordBatch};
use stepcast_estimator::arrow::compute::concat_batches;
use stepcast_estimator::import::{Mapping, TRAINING_HEADER};
use stepcast_tests::python::Python;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{Server, reason};

const TOKEN: &str = "0123456789abcdef0123";
const QUESTION: &str =
    "SELECT hardware, avg_step_ms, resolution_mp FROM training_steps ORDER BY avg_step_ms";

/// A server with so many rows, which asks for a token.
async fn server(rows: u32) -> Server {
    let server = Server::with(ApiConfig {
        access_token: AccessToken::new(TOKEN).ok(),
        ..ApiConfig::default()
    })
    .await;
    let mut file = format!("{TRAINING_HEADER}\n");
    for row in 0..rows {
        let (gpu, ms) = (["h100", "l40s"][row as usize % 2], 300 + row);
        file += &format!("flux.dev/lora,{gpu},1.0,4,1,bf16,int8,{ms},120\n");
    }
    let imported = server
        .estimator
        .import("figures", Mapping::Records, file.as_bytes())
        .await
        .unwrap();
    assert_eq!(imported.stored, rows as usize);
    server
}

fn driver(server: &Server) -> FlightSqlServiceClient<Channel> {
    let mut client = FlightSqlServiceClient::new(server.channel.clone());
    client.set_token(TOKEN.to_owned());
    client
}

/// The rows that an answer says where to get.
async fn rows(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> RecordBatch {
    let schema = info.clone().try_decode_schema().unwrap();
    assert_eq!(info.endpoint.len(), 1, "everything is to be had here");
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<RecordBatch> = client
        .do_get(ticket)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    for batch in &batches {
        assert_eq!(
            *batch.schema(),
            schema,
            "the columns are as was said before"
        );
    }
    concat_batches(&schema.into(), &batches).unwrap()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column
        .iter()
        .map(|text| text.unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_read_what_sql_answers() {
    let server = server(7).await;
    let answer = server.estimator.sql(QUESTION).await.unwrap();
    let expected = concat_batches(&answer.schema, &answer.batches).unwrap();
    assert_eq!(expected.num_rows(), 7);
    let mut client = driver(&server);

    let info = client.execute(QUESTION.to_owned(), None).await.unwrap();
    assert_eq!(rows(&mut client, info).await, expected);

    let mut prepared = client.prepare(QUESTION.to_owned(), None).await.unwrap();
    assert_eq!(*prepared.dataset_schema().unwrap(), *expected.schema());
    assert!(prepared.parameter_schema().unwrap().fields().is_empty());
    let info = prepared.execute().await.unwrap();
    assert_eq!(rows(&mut client, info).await, expected);
    prepared.close().await.unwrap();

    let none = format!("SELECT * FROM ({QUESTION}) WHERE avg_step_ms < 0");
    let info = client.execute(none, None).await.unwrap();
    let none = rows(&mut client, info).await;
    assert_eq!((none.num_rows(), none.num_columns()), (0, 3));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_find_the_tables_and_what_the_server_is() {
    let server = server(1).await;
    let mut client = driver(&server);
    let asked = CommandGetTables {
        table_name_filter_pattern: Some("%steps".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(asked).await.unwrap();
    let tables = rows(&mut client, info).await;
    assert_eq!(texts(&tables, "table_name"), ["training_steps"]);
    assert_eq!(texts(&tables, "table_type"), ["TABLE"]);
    let info = client
        .get_tables(CommandGetTables::default())
        .await
        .unwrap();
    assert_eq!(rows(&mut client, info).await.num_rows(), 2);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(
        texts(&rows(&mut client, info).await, "table_type"),
        ["TABLE"]
    );
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "catalog_name"), [""]);
    let asked = CommandGetDbSchemas::default();
    let info = client.get_db_schemas(asked).await.unwrap();
    assert_eq!(
        texts(&rows(&mut client, info).await, "db_schema_name"),
        [""]
    );
    let asked = vec![
        SqlInfo::FlightSqlServerName,
        SqlInfo::FlightSqlServerReadOnly,
    ];
    let info = client.get_sql_info(asked).await.unwrap();
    assert_eq!(rows(&mut client, info).await.num_rows(), 2);
    // What JDBC's tools ask when they connect. No table has a key.
    let table = || "training_steps".to_owned();
    let asked = CommandGetPrimaryKeys {
        table: table(),
        ..CommandGetPrimaryKeys::default()
    };
    let info = client.get_primary_keys(asked).await.unwrap();
    let keys = rows(&mut client, info).await;
    assert_eq!((keys.num_rows(), keys.num_columns()), (0, 6));
    let asked = CommandGetImportedKeys {
        table: table(),
        ..CommandGetImportedKeys::default()
    };
    let info = client.get_imported_keys(asked).await.unwrap();
    let imported = rows(&mut client, info).await;
    let asked = CommandGetExportedKeys {
        table: table(),
        ..CommandGetExportedKeys::default()
    };
    let info = client.get_exported_keys(asked).await.unwrap();
    let exported = rows(&mut client, info).await;
    let asked = CommandGetCrossReference {
        pk_table: table(),
        fk_table: table(),
        ..CommandGetCrossReference::default()
    };
    let info = client.get_cross_reference(asked).await.unwrap();
    for keys in [imported, exported, rows(&mut client, info).await] {
        assert_eq!((keys.num_rows(), keys.num_columns()), (0, 13));
    }
    let asked = CommandGetXdbcTypeInfo::default();
    let info = client.get_xdbc_type_info(asked).await.unwrap();
    let types = rows(&mut client, info).await;
    assert_eq!(
        texts(&types, "type_name")
            .into_iter()
            .collect::<BTreeSet<_>>(),
        ["BIGINT", "DOUBLE", "INTEGER", "VARCHAR"]
            .map(str::to_owned)
            .into()
    );
    let unknown = Any {
        type_url: "type.googleapis.com/nobody.s.Command".to_owned(),
        value: Bytes::new(),
    };
    let unknown = FlightDescriptor::new_cmd(unknown.encode_to_vec());
    let mut plain = FlightServiceClient::new(server.channel.clone());
    let refused = plain
        .get_flight_info(shown(Some(TOKEN), unknown.clone()))
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "INVALID_FIELD");
    let refused = plain.get_schema(shown(Some(TOKEN), unknown)).await;
    assert_eq!(reason(&refused.unwrap_err()), "NO_SUCH_CALL");
    server.stop().await;
}

/// What Flight answers to a statement, without a driver in between.
async fn asked(server: &Server, token: Option<&str>, sql: &str) -> Result<FlightInfo, Status> {
    let command = CommandStatementQuery {
        query: sql.to_owned(),
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let mut client = FlightServiceClient::new(server.channel.clone());
    let info = client.get_flight_info(shown(token, descriptor)).await?;
    Ok(info.into_inner())
}

/// What Flight answers to a ticket.
async fn got(server: &Server, ticket: Ticket) -> Result<Vec<FlightData>, Status> {
    let mut client = FlightServiceClient::new(server.channel.clone());
    let got = client.do_get(shown(Some(TOKEN), ticket)).await?;
    got.into_inner().try_collect().await
}

fn shown<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_whole_is_refused() {
    let server = server(101).await;
    for (sql, why) in [
        ("DROP TABLE training_steps", "STATEMENT_REFUSED"),
        ("SELECT 1; SELECT 2", "STATEMENT_REFUSED"),
        ("SELECT no_such_column FROM training_steps", "QUERY_INVALID"),
        (
            "SELECT avg_step_ms FROM training_steps WHERE hardware = $1",
            "STATEMENT_REFUSED",
        ),
    ] {
        let refused = asked(&server, Some(TOKEN), sql).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{sql}");
        assert_eq!(reason(&refused), why, "{sql}");
    }
    let many = "SELECT a.avg_step_ms FROM training_steps a CROSS JOIN training_steps b";
    let info = asked(&server, Some(TOKEN), many).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let refused = got(&server, ticket).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "ANSWER_TOO_LARGE")
    );
    let whole = format!("{many} LIMIT 10000");
    let info = asked(&server, Some(TOKEN), &whole).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert!(got(&server, ticket).await.is_ok());

    // A ticket of something else, and a statement that changes something.
    assert!(got(&server, Ticket::new("nonsense")).await.is_err());
    let update = CommandStatementUpdate {
        query: "DELETE FROM training_steps".to_owned(),
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(update.as_any().encode_to_vec());
    let mut client = FlightServiceClient::new(server.channel.clone());
    let refused = client.get_flight_info(shown(Some(TOKEN), descriptor)).await;
    assert!(refused.is_err());
    let put = futures::stream::iter([FlightData::default()]);
    let refused = client.do_put(shown(Some(TOKEN), put)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let kept = server.estimator.sql("SELECT count(*) FROM training_steps");
    assert_eq!(kept.await.unwrap().cells(), [[Some("101".to_owned())]]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_shows_a_token_as_such_or_as_a_password() {
    let server = server(1).await;
    for wrong in [None, Some("wrong")] {
        let refused = asked(&server, wrong, "SELECT 1").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    assert!(asked(&server, Some(TOKEN), "SELECT 1").await.is_ok());
    let mut client = FlightSqlServiceClient::new(server.channel.clone());
    assert!(client.handshake("anybody", "wrong").await.is_err());
    client.handshake("anybody", TOKEN).await.unwrap();
    let info = client.execute("SELECT 1 AS n".to_owned(), None).await;
    assert_eq!(rows(&mut client, info.unwrap()).await.num_rows(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adbc_reads_what_sql_answers() {
    let Some(python) = Python::with(&["adbc_driver_flightsql.dbapi", "pyarrow"]) else {
        return;
    };
    let server = server(7).await;
    let address = format!("grpc://127.0.0.1:{}", server.port);
    let run = move || python.run("ask_flight.py", &[&address, TOKEN, QUESTION]);
    let said = tokio::task::spawn_blocking(run).await.unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let answer = server.estimator.sql(QUESTION).await.unwrap();
    let expected: Vec<Vec<String>> = answer
        .cells()
        .into_iter()
        .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
        .collect();
    assert_eq!(said["by_token"], serde_json::json!(expected));
    assert_eq!(said["by_password"], said["by_token"]);
    assert_eq!(
        said["tables"],
        serde_json::json!(["training_steps", "validation_prompts"])
    );
    assert_eq!(said["server"], "Stepcast");
    let refused = said["refused"].as_str().unwrap();
    assert!(refused.contains("DROP is not allowed here"), "{refused}");
    server.stop().await;
}
