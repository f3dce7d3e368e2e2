//! Questions. Each names the flag that answers it, for when nobody is there to be asked.

use std::fmt::Display;
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use dialoguer::theme::{ColorfulTheme, SimpleTheme, Theme};
use nix::sys::termios::{self, SetArg, Termios};

use crate::api::secret::SecretText;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Ui;

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// What is asked: "Name of the tenant".
    pub text: &'a str,
    /// The flag that answers it: "--name NAME"; or, with backticks in it, the way out in words.
    pub flag: &'a str,
}

impl<'a> Prompt<'a> {
    /// A question and the flag that answers it.
    #[must_use]
    pub const fn new(text: &'a str, flag: &'a str) -> Self {
        Self { text, flag }
    }

    fn way_out(&self) -> String {
        if self.flag.contains('`') {
            self.flag.to_owned()
        } else {
            format!("give it with `{}`", self.flag)
        }
    }
}

/// How the terminal was before a question, so that Ctrl-C in the middle of one leaves no trace.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    before: Mutex<Option<Termios>>,
}

impl Terminal {
    fn remember(&self) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = termios::tcgetattr(io::stdin()).ok();
    }

    fn forget(&self) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Brings back echo and the cursor, if a question was left in the middle.
    pub(super) fn restore(&self) {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
            let _ = console::Term::stderr().show_cursor();
        }
    }
}

impl Ui {
    /// Asks for a text, again until it parses.
    pub async fn ask_text<T>(&self, prompt: Prompt<'_>, default: Option<String>) -> Result<T, CliError>
    where
        T: FromStr + Send + 'static,
        T::Err: Display,
    {
        let text = prompt.text.to_owned();
        self.ask(prompt, move |theme| {
            let mut input = dialoguer::Input::<String>::with_theme(theme)
                .with_prompt(text)
                .validate_with(|text: &String| match text.parse::<T>() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                });
            if let Some(default) = default {
                input = input.default(default);
            }
            let text = input.interact_text()?;
            text.parse::<T>()
                .map_err(|error| dialoguer::Error::IO(io::Error::other(error.to_string())))
        })
        .await
    }

    /// Asks for something that is not shown.
    pub async fn ask_secret(&self, prompt: Prompt<'_>) -> Result<SecretText, CliError> {
        let text = prompt.text.to_owned();
        self.ask(prompt, move |theme| {
            dialoguer::Password::with_theme(theme)
                .with_prompt(text)
                .interact()
                .map(SecretText::new)
        })
        .await
    }

    /// Asks for yes or no.
    pub async fn ask_confirm(&self, prompt: Prompt<'_>, default: bool) -> Result<bool, CliError> {
        let text = prompt.text.to_owned();
        self.ask(prompt, move |theme| {
            dialoguer::Confirm::with_theme(theme)
                .with_prompt(text)
                .default(default)
                .interact()
        })
        .await
    }

    /// Asks for one of several; answers its place in the list.
    pub async fn ask_choice(&self, prompt: Prompt<'_>, items: Vec<String>) -> Result<usize, CliError> {
        let text = prompt.text.to_owned();
        self.ask(prompt, move |theme| {
            dialoguer::Select::with_theme(theme)
                .with_prompt(text)
                .items(&items)
                .default(0)
                .interact()
        })
        .await
    }

    /// Runs a question on a thread of its own, so that Ctrl-C is heard while it waits for a key.
    async fn ask<T, F>(&self, prompt: Prompt<'_>, question: F) -> Result<T, CliError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Theme) -> dialoguer::Result<T> + Send + 'static,
    {
        if !self.interactive {
            return Err(CliError::usage(format!(
                "an answer is missing and there is no terminal to ask on: {}",
                prompt.text
            ))
            .code("answer-missing")
            .hint(prompt.way_out()));
        }
        self.terminal.remember();
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let answer = if console::colors_enabled_stderr() {
                question(&ColorfulTheme::default())
            } else {
                question(&SimpleTheme)
            };
            let _ = send.send(answer);
        });
        let answer = receive
            .await
            .map_err(|error| CliError::failed("the prompt ended without an answer").because(error))?;
        match answer {
            Ok(answer) => {
                self.terminal.forget();
                Ok(answer)
            }
            Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => {
                Err(CliError::new(Kind::Interrupted, "interrupted"))
            }
            Err(error) => Err(CliError::failed("failed to read an answer from the terminal").because(error)),
        }
    }
}
