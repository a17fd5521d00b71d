//! GPU models in the log: their permanent numbers, which are smaller and quicker than their names.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stepcast_records::GpuModel;

pub(super) fn serialize<S: Serializer>(models: &[GpuModel], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(models.iter().map(|model| model.number()))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<GpuModel>, D::Error> {
    let numbers = Vec::<u8>::deserialize(from)?;
    let known = |number| {
        GpuModel::from_number(number).ok_or_else(|| D::Error::custom("an unknown GPU model"))
    };
    numbers.into_iter().map(known).collect()
}

pub(super) mod one {
    //! The same for a single model.

    use super::{Deserialize, Deserializer, Error, GpuModel, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        model: &GpuModel,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        model.number().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<GpuModel, D::Error> {
        let number = u8::deserialize(from)?;
        GpuModel::from_number(number).ok_or_else(|| D::Error::custom("an unknown GPU model"))
    }
}
