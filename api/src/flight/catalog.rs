//! What Flight SQL says of the tables and of the server. The tables are in no catalogue and no schema: where a client
//! wants a name of either, it is empty.

use std::sync::{Arc, LazyLock};

use arrow_flight::error::Result;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables, Nullable, Searchable, SqlInfo,
    XdbcDataType,
};
use stepcast_estimator::arrow::array::{RecordBatch, StringArray};
use stepcast_estimator::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use stepcast_estimator::sql;

/// The name of the catalogue and of the schema that the tables are in.
const NOWHERE: &str = "";
/// What both tables are.
const TABLE: &str = "TABLE";
/// The version of the Arrow formats that are spoken.
const ARROW_VERSION: &str = "1.5";

/// The one catalogue.
pub(super) fn catalogs(query: CommandGetCatalogs) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    builder.append(NOWHERE);
    builder.build()
}

/// The one schema, if it is asked for.
pub(super) fn schemas(query: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    builder.append(NOWHERE, NOWHERE);
    builder.build()
}

/// Those of the tables that are asked for.
pub(super) fn tables(query: CommandGetTables) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    for table in sql::tables() {
        builder.append(NOWHERE, NOWHERE, table.name, TABLE, &table.schema)?;
    }
    builder.build()
}

/// The column of [`table_types`], by the protocol.
pub(super) fn table_types_schema() -> SchemaRef {
    let field = Field::new("table_type", DataType::Utf8, false);
    Arc::new(Schema::new(vec![field]))
}

/// Which kinds of tables there are.
pub(super) fn table_types() -> Result<RecordBatch> {
    let kinds = StringArray::from(vec![TABLE]);
    Ok(RecordBatch::try_new(
        table_types_schema(),
        vec![Arc::new(kinds)],
    )?)
}

/// The columns of what says which columns are a primary key, by the protocol. None are.
pub(super) fn primary_keys() -> SchemaRef {
    columns(&[
        ("catalog_name", DataType::Utf8, true),
        ("db_schema_name", DataType::Utf8, true),
        ("table_name", DataType::Utf8, false),
        ("column_name", DataType::Utf8, false),
        ("key_name", DataType::Utf8, true),
        ("key_sequence", DataType::Int32, false),
    ])
}

/// The columns of what says which columns are those of another table, by the protocol. None are.
pub(super) fn foreign_keys() -> SchemaRef {
    columns(&[
        ("pk_catalog_name", DataType::Utf8, true),
        ("pk_db_schema_name", DataType::Utf8, true),
        ("pk_table_name", DataType::Utf8, false),
        ("pk_column_name", DataType::Utf8, false),
        ("fk_catalog_name", DataType::Utf8, true),
        ("fk_db_schema_name", DataType::Utf8, true),
        ("fk_table_name", DataType::Utf8, false),
        ("fk_column_name", DataType::Utf8, false),
        ("key_sequence", DataType::Int32, false),
        ("fk_key_name", DataType::Utf8, true),
        ("pk_key_name", DataType::Utf8, true),
        ("update_rule", DataType::UInt8, false),
        ("delete_rule", DataType::UInt8, false),
    ])
}

fn columns(columns: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| {
        Field::new(*name, kind.clone(), *nullable)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The types that columns of the tables and of statements over them have.
pub(super) fn types() -> Result<XdbcTypeInfoData> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, size, radix) in [
        ("VARCHAR", XdbcDataType::XdbcVarchar, None, None),
        ("INTEGER", XdbcDataType::XdbcInteger, Some(32), Some(2)),
        ("BIGINT", XdbcDataType::XdbcBigint, Some(64), Some(2)),
        ("DOUBLE", XdbcDataType::XdbcDouble, Some(53), Some(2)),
    ] {
        let quote = (name == "VARCHAR").then(|| "'".to_owned());
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: kind,
            sql_data_type: kind,
            column_size: size,
            num_prec_radix: radix,
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: true,
            searchable: Searchable::Full,
            ..XdbcTypeInfo::default()
        });
    }
    types.build()
}

/// The server in the terms of the protocol.
pub(super) fn about() -> std::result::Result<&'static SqlInfoData, &'static str> {
    static ABOUT: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| {
        let mut about = SqlInfoDataBuilder::new();
        about.append(SqlInfo::FlightSqlServerName, "Stepcast");
        about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
        about.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
        about.append(SqlInfo::FlightSqlServerReadOnly, true);
        about.append(SqlInfo::FlightSqlServerSql, true);
        about.append(SqlInfo::FlightSqlServerSubstrait, false);
        about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
        about.append(SqlInfo::SqlDdlCatalog, false);
        about.append(SqlInfo::SqlDdlSchema, false);
        about.append(SqlInfo::SqlDdlTable, false);
        about.build().ok()
    });
    ABOUT
        .as_ref()
        .ok_or("what is said of the server does not fit the protocol")
}
