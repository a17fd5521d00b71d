//! Parts of a plan that pass rows on as they are, and do about their memory what the engine does not.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::measure::used;

/// What is done about the memory of rows that are passed on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Memory {
    /// They are counted as held until the statement ends: what the engine keeps whole without counting it.
    Held,
    /// Their batches hold no more than them. What groups hands out its rows in slices of one large batch, and whoever keeps
    /// such a slice counts the whole batch for each, so that three megabytes of groups would be refused as two hundred.
    Compact,
}

/// Passes rows on.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) rows: Arc<dyn ExecutionPlan>,
    pub(super) memory: Memory,
}

impl DisplayAs for Passed {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for Passed {
    fn name(&self) -> &'static str {
        match self.memory {
            Memory::Held => "Held",
            Memory::Compact => "Compact",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let first = children.into_iter().next();
        Ok(Arc::new(Self {
            rows: first.unwrap_or_else(|| Arc::clone(&self.rows)),
            memory: self.memory,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, anew)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let memory = self.memory;
        // Nothing of the statement's memory until something is counted.
        let held = MemoryConsumer::new("held").register(context.memory_pool());
        let rows = self.rows.execute(partition, context)?;
        let schema = rows.schema();
        let passed = rows.map(move |batch| {
            let batch = batch?;
            match memory {
                Memory::Held => {
                    let batch = compact(batch)?;
                    held.try_grow(batch.get_array_memory_size())?;
                    Ok(batch)
                }
                Memory::Compact => compact(batch),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, passed)))
    }
}

/// The rows in a batch of their own, unless it is mostly theirs already.
fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    let used = batch.columns().iter().map(used);
    let used = used.sum::<Result<usize>>()?;
    if batch.get_array_memory_size() <= 2 * used.max(1_024) {
        return Ok(batch);
    }
    let all: UInt32Array = (0..batch.num_rows() as u32).collect();
    let copied = take_record_batch(&batch, &all)?;
    let columns = copied.columns().iter().map(own_texts).collect();
    Ok(RecordBatch::try_new(copied.schema(), columns)?)
}

/// A column whose texts are in buffers of its own.
fn own_texts(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn a_slice_holds_its_own_rows_and_no_others() {
        let texts = (0..100_000).map(|number| format!("a text that is no view of itself {number}"));
        let schema = Schema::new(vec![
            Field::new("number", DataType::Int64, false),
            Field::new("text", DataType::Utf8View, false),
        ]);
        let whole = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new((0..100_000).collect::<Int64Array>()),
                Arc::new(texts.map(Some).collect::<StringViewArray>()),
            ],
        )
        .expect("a batch");
        let slice = whole.slice(50_000, 1_000);
        let alone = compact(slice.clone()).expect("it is copied");
        assert_eq!(alone, slice);
        assert!(slice.get_array_memory_size() > 5_000_000);
        assert!(alone.get_array_memory_size() < 200_000);
        let again = compact(alone.clone()).expect("it is kept");
        assert!(Arc::ptr_eq(alone.column(0), again.column(0)));
    }
}
