//! Arrow Flight SQL: the tables for programs that speak Arrow, such as the drivers of ADBC and JDBC.
//!
//! Nothing is kept between calls. A ticket and a prepared statement are the statement itself, so that any node answers
//! any call of a client, and a client that goes away leaves nothing behind.

mod catalog;

use std::pin::Pin;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, Command, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
    SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    IpcMessage, SchemaAsIpc, Ticket,
};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use stepcast_estimator::arrow::array::RecordBatch;
use stepcast_estimator::arrow::datatypes::{Schema, SchemaRef};
use stepcast_estimator::arrow::ipc::writer::IpcWriteOptions;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::admission::{Admission, peer};
use crate::listen::Peer;
use crate::reader::{Reader, Reading};
use crate::service;
use crate::status::{self, Refusal};

/// The service.
pub(crate) struct Flight {
    pub(crate) records: service::Records,
    pub(crate) admission: Admission,
}

/// Rows on their way.
type Rows = <Flight as FlightService>::DoGetStream;
/// The answer to a handshake.
type Shaken = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

impl Flight {
    /// What a statement answers, whole: no driver shows that an answer was cut, so one that would be is refused.
    async fn rows(&self, sql: &str, reading: Reading) -> Result<Response<Rows>, Status> {
        let answer = self.records.query(reading.reader(), sql, 0).await?;
        if answer.truncated {
            let refusal = Refusal::new(
                Code::ResourceExhausted,
                "ANSWER_TOO_LARGE",
                "the answer has more rows or bytes than one answer may have",
            );
            return Err(refusal
                .hint("ask for fewer with LIMIT, or for groups")
                .into());
        }
        let rows = sent(answer.schema, answer.batches);
        Ok(rows.map(|rows| reading.of(rows, |_| Ok(()))))
    }

    /// Where the answer to a statement is to be had, and its columns.
    async fn described(
        &self,
        sql: &str,
        ticket: Vec<u8>,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let reader = Reader::by(&request)?;
        let schema = self.records.columns(&reader, sql).await?;
        info(&schema, ticket, request)
    }
}

/// Rows as a stream of Flight.
fn sent(schema: SchemaRef, batches: Vec<RecordBatch>) -> Response<Rows> {
    let batches = stream::iter(batches.into_iter().map(Ok));
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(batches);
    Response::new(encoded.map_err(Status::from).boxed())
}

/// Says that a ticket is good for rows of these columns, here.
fn info(
    schema: &Schema,
    ticket: Vec<u8>,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(unwritten)?
        .with_endpoint(endpoint)
        .with_descriptor(request.into_inner());
    Ok(Response::new(info))
}

/// The statement that a ticket or handle is.
fn statement(handle: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(handle)
        .map_err(|_| status::bad_field("statement_handle", "this is no handle of this server"))
}

/// A command of the protocol that nothing here answers.
fn not_ours(field: &str) -> Status {
    status::bad_field(
        field,
        "the tables are read by statements and prepared statements, and described; nothing else is",
    )
}

fn unwritten(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "an answer cannot be written for Arrow Flight");
    status::internal("ARROW", "the answer cannot be written for Arrow Flight")
}

/// The token that stands in place of a password.
fn token_in(headers: &HeaderMap) -> Option<String> {
    let shown = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let basic = shown.strip_prefix("Basic ")?;
    // Drivers differ in whether they fill up to fours.
    let basic = basic.trim().trim_end_matches('=');
    let plain = String::from_utf8(STANDARD_NO_PAD.decode(basic).ok()?).ok()?;
    let (_, token) = plain.split_once(':')?;
    Some(token.to_owned())
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    /// For drivers that know a name and a password only: the password is the token, and the name is not looked at.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Shaken>, Status> {
        let (metadata, extensions, _) = request.into_parts();
        let shown = metadata.into_headers();
        let bearer = token_in(&shown).and_then(|token| format!("Bearer {token}").parse().ok());
        let mut headers = HeaderMap::new();
        if let Some(bearer) = bearer.or_else(|| shown.get(AUTHORIZATION).cloned()) {
            headers.insert(AUTHORIZATION, bearer);
        }
        let peer = peer(&extensions);
        let caller = self.admission.caller_of(&headers, peer).await?;
        Peer::note_token(&extensions);
        self.admission.count(&caller, peer)?;
        let shaken: Shaken = stream::iter([Ok(HandshakeResponse::default())]).boxed();
        let mut response = Response::new(shaken);
        *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = TicketStatementQuery {
            statement_handle: query.query.clone().into(),
        };
        let ticket = ticket.as_any().encode_to_vec();
        self.described(&query.query, ticket, request).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let reading = Reader::by(&request)?.open()?;
        let sql = statement(&ticket.statement_handle)?;
        self.rows(sql, reading).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let reader = Reader::by(&request)?;
        let schema = self.records.columns(&reader, &query.query).await?;
        let options = IpcWriteOptions::default();
        let IpcMessage(dataset_schema) = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(|error: stepcast_estimator::arrow::error::ArrowError| unwritten(error))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into(),
            dataset_schema,
            // Statements have no parameters.
            parameter_schema: Default::default(),
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        let sql = statement(&query.prepared_statement_handle)?;
        self.described(sql, ticket, request).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let reading = Reader::by(&request)?.open()?;
        let sql = statement(&query.prepared_statement_handle)?;
        self.rows(sql, reading).await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&query.into_builder().schema(), ticket, request)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let batch = catalog::catalogs(query).map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&query.into_builder().schema(), ticket, request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let batch = catalog::schemas(query).map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&query.into_builder().schema(), ticket, request)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let batch = catalog::tables(query).map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&catalog::table_types_schema(), ticket, request)
    }

    async fn do_get_table_types(
        &self,
        _: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let batch = catalog::table_types().map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        let about = catalog::about().map_err(unwritten)?;
        info(&query.into_builder(about).schema(), ticket, request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let about = catalog::about().map_err(unwritten)?;
        let batch = query.into_builder(about).build().map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&catalog::primary_keys(), ticket, request)
    }

    async fn do_get_primary_keys(
        &self,
        _: CommandGetPrimaryKeys,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        Ok(sent(catalog::primary_keys(), Vec::new()))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&catalog::foreign_keys(), ticket, request)
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        Ok(sent(catalog::foreign_keys(), Vec::new()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&catalog::foreign_keys(), ticket, request)
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        Ok(sent(catalog::foreign_keys(), Vec::new()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        info(&catalog::foreign_keys(), ticket, request)
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        Ok(sent(catalog::foreign_keys(), Vec::new()))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        let types = catalog::types().map_err(unwritten)?;
        info(&query.into_builder(&types).schema(), ticket, request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let types = catalog::types().map_err(unwritten)?;
        let batch = query.into_builder(&types).build().map_err(unwritten)?;
        Ok(sent(batch.schema(), vec![batch]))
    }

    async fn get_flight_info_fallback(
        &self,
        _: Command,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(not_ours("descriptor"))
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, _: Any) -> Result<Response<Rows>, Status> {
        Err(not_ours("ticket"))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(shown: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, shown.parse().expect("a header"));
        headers
    }

    #[test]
    fn a_password_is_a_token() {
        let basic = |plain: &str| headers(&format!("Basic {}", STANDARD_NO_PAD.encode(plain)));
        assert_eq!(token_in(&basic("me:a:b")).as_deref(), Some("a:b"));
        assert_eq!(token_in(&basic(":token")).as_deref(), Some("token"));
        assert_eq!(token_in(&basic("no colon")), None);
        let filled = headers("Basic bWU6dG9rZQ==");
        assert_eq!(token_in(&filled).as_deref(), Some("toke"));
        assert_eq!(token_in(&headers("Bearer token")), None);
        assert_eq!(token_in(&headers("Basic ?!")), None);
    }

    #[test]
    fn a_handle_is_the_statement() {
        assert_eq!(statement(b"SELECT 1").expect("text"), "SELECT 1");
        assert_eq!(
            statement(&[0xff]).expect_err("none").code(),
            Code::InvalidArgument
        );
    }
}
