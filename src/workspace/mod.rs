//! The `.systemprompt` folder of a project, and the credentials of this machine.
