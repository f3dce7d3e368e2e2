//! What runs inside the sample tenant: `services serve` and `services db migrate`.
