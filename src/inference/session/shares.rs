//! Which provider really runs the model, read from a profile of one run.

/// True when a profile (a JSON array of events) holds a node that ran on `provider`.
pub(super) fn profile_names(profile: &str, provider: &str) -> bool {
    let events: Vec<serde_json::Value> = serde_json::from_str(profile).unwrap_or_default();
    events.iter().any(|event| event["cat"] == "Node" && event["args"]["provider"] == provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_who_ran_the_nodes() {
        let profile = r#"[
            {"cat": "Session", "name": "model_run", "args": {}},
            {"cat": "Node", "name": "a_kernel_time", "args": {"op_name": "Conv", "provider": "CPUExecutionProvider"}}
        ]"#;
        assert!(profile_names(profile, "CPUExecutionProvider"));
        assert!(!profile_names(profile, "CUDAExecutionProvider"));
        assert!(!profile_names("", "CPUExecutionProvider"));
    }
}
