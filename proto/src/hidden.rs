//! Messages whose contents are secret or personal: whoever prints them sees what they are and not what is in them.

use std::fmt;

use crate::v1::{Credential, GiveCredentialsRequest, JobFile};

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credential").field(&self.name).finish()
    }
}

impl fmt::Debug for GiveCredentialsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GiveCredentialsRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JobFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobFile")
            .field("role", &self.role)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::GetAssignmentFilesResponse;

    #[test]
    fn no_content_is_shown() {
        let file = JobFile {
            content: b"canary".to_vec(),
            ..JobFile::default()
        };
        let credential = Credential {
            name: "hub_token".to_owned(),
            value: "canary".to_owned(),
        };
        let given = GiveCredentialsRequest {
            name: "jobs/jmnpq".to_owned(),
            credentials: [("hub_token".to_owned(), "canary".to_owned())].into(),
            files: vec![file.clone()],
        };
        let answer = GetAssignmentFilesResponse {
            files: vec![file],
            credentials: vec![credential],
        };
        let shown = format!("{given:?} {answer:?}");
        // Bytes would be shown as numbers.
        assert!(
            !shown.contains("canary") && !shown.contains("99, 97, 110"),
            "{shown}"
        );
        assert!(shown.contains("hub_token"), "{shown}");
    }
}
