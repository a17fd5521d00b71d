//! The fields of a stored record: the policy's list, and nothing else.
//!
//! A field that is not in the policy must not be added here. Table formats are made from these lists.

/// How a field is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// A name from a closed registry or list.
    Name,
    /// A resolution bucket in megapixels: a multiple of one half.
    Megapixels,
    /// A whole number from a closed grid.
    Grid,
    /// A whole number of milliseconds.
    Milliseconds,
    /// A clipped whole number.
    Count,
}

/// Training step records.
pub const TRAINING_FIELDS: [(&str, FieldType); 9] = [
    ("recipe", FieldType::Name),
    ("hardware", FieldType::Name),
    ("resolution_mp", FieldType::Megapixels),
    ("batch_size", FieldType::Grid),
    ("gradient_accumulation_steps", FieldType::Grid),
    ("precision", FieldType::Name),
    ("quantization", FieldType::Name),
    ("avg_step_ms", FieldType::Milliseconds),
    ("steps_observed", FieldType::Count),
];

/// Validation records.
pub const VALIDATION_FIELDS: [(&str, FieldType); 8] = [
    ("recipe", FieldType::Name),
    ("hardware", FieldType::Name),
    ("resolution_mp", FieldType::Megapixels),
    ("inference_steps", FieldType::Grid),
    ("precision", FieldType::Name),
    ("quantization", FieldType::Name),
    ("avg_prompt_ms", FieldType::Milliseconds),
    ("prompts_observed", FieldType::Count),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_policy_and_no_others() {
        let training = TRAINING_FIELDS.map(|(name, _)| name).join(" ");
        assert_eq!(
            training,
            "recipe hardware resolution_mp batch_size gradient_accumulation_steps precision \
             quantization avg_step_ms steps_observed",
            "a new field is a change of the privacy policy"
        );
        let validation = VALIDATION_FIELDS.map(|(name, _)| name).join(" ");
        assert_eq!(
            validation,
            "recipe hardware resolution_mp inference_steps precision quantization avg_prompt_ms \
             prompts_observed",
            "a new field is a change of the privacy policy"
        );
    }
}
