//! The plans, embedded.

use crate::api::checkout::Plan;

/// The embedded plans are not what they must be.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the embedded plans")]
pub struct CatalogueError(#[from] serde_json::Error);

/// Reads the embedded plans, cheapest first.
///
/// # Errors
/// They are damaged.
pub fn load() -> Result<Vec<Plan>, CatalogueError> {
    Ok(serde_json::from_str(include_str!("plans.json"))?)
}

#[cfg(test)]
mod tests {
    use super::load;
    use crate::api::tenant::MEMORY_SIZES_MB;

    #[test]
    fn the_embedded_plans_are_sound() {
        let plans = load().expect("readable");
        assert_eq!(
            plans.first().map(|plan| plan.amount_minor),
            Some(0),
            "the first is free"
        );
        for plan in &plans {
            assert!(plan.price_id.starts_with("pri_"), "{}", plan.price_id);
            assert!(MEMORY_SIZES_MB.contains(&plan.max_memory_mb), "{}", plan.name);
            assert_eq!(plan.interval.is_none(), plan.amount_minor == 0, "{}", plan.name);
        }
    }
}
