//! The schema of each table, made from the policy's field list and compared with it literally by a test.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::kernel::{DataType as DeltaType, StructField};
use stepcast_records::Key;
use stepcast_records::schema::{FieldType, TRAINING_FIELDS, VALIDATION_FIELDS};

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `training_steps`: one row per contribution and training key.
    Training,
    /// `validation_prompts`: one row per contribution and validation key.
    Validation,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Training, Self::Validation];

    /// The table that holds rows of this key.
    #[must_use]
    pub const fn of(key: &Key) -> Self {
        match key {
            Key::Training(_) => Self::Training,
            Key::Validation(_) => Self::Validation,
        }
    }

    /// The name in SQL, which is the name of the folder too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training_steps",
            Self::Validation => "validation_prompts",
        }
    }

    /// The policy's fields.
    pub(crate) const fn fields(self) -> &'static [(&'static str, FieldType)] {
        match self {
            Self::Training => &TRAINING_FIELDS,
            Self::Validation => &VALIDATION_FIELDS,
        }
    }

    /// The columns as Arrow sees them. None may be null and none has metadata.
    pub(crate) fn arrow_schema(self) -> SchemaRef {
        let fields = self.fields().iter();
        let fields = fields.map(|&(name, kind)| Field::new(name, arrow_type(kind), false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns as the log of the table has them.
    pub(crate) fn delta_fields(self) -> impl Iterator<Item = StructField> {
        let fields = self.fields().iter();
        fields.map(|&(name, kind)| StructField::new(name, delta_type(kind), false))
    }
}

const fn arrow_type(field: FieldType) -> DataType {
    match field {
        FieldType::Name => DataType::Utf8,
        FieldType::Megapixels => DataType::Float64,
        FieldType::Grid | FieldType::Milliseconds | FieldType::Count => DataType::Int32,
    }
}

const fn delta_type(field: FieldType) -> DeltaType {
    match field {
        FieldType::Name => DeltaType::STRING,
        // Halves are exact in a float, and every tool shows 1.0 as people write it.
        FieldType::Megapixels => DeltaType::DOUBLE,
        FieldType::Grid | FieldType::Milliseconds | FieldType::Count => DeltaType::INTEGER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(kind: Kind) -> Vec<String> {
        let schema = kind.arrow_schema();
        assert!(schema.metadata().is_empty());
        let fields = schema.fields().iter();
        let column = |field: &Arc<Field>| {
            assert!(field.metadata().is_empty() && !field.is_nullable());
            format!("{} {}", field.name(), field.data_type())
        };
        fields.map(column).collect()
    }

    /// The lists are written out here on purpose: adding a column is a change of the privacy policy.
    #[test]
    fn the_columns_are_the_policys_fields_and_no_others() {
        assert_eq!(
            columns(Kind::Training),
            [
                "recipe Utf8",
                "hardware Utf8",
                "resolution_mp Float64",
                "batch_size Int32",
                "gradient_accumulation_steps Int32",
                "precision Utf8",
                "quantization Utf8",
                "avg_step_ms Int32",
                "steps_observed Int32",
            ]
        );
        assert_eq!(
            columns(Kind::Validation),
            [
                "recipe Utf8",
                "hardware Utf8",
                "resolution_mp Float64",
                "inference_steps Int32",
                "precision Utf8",
                "quantization Utf8",
                "avg_prompt_ms Int32",
                "prompts_observed Int32",
            ]
        );
    }
}
