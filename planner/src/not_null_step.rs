//! Which step comes next in making one column of one table NOT NULL.
//!
//! What has been done is read from the catalogs each time, so that it does not matter where an earlier CALL stopped.

/// What the catalogs say of a column's NULLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nullness {
    /// NOT NULL itself.
    pub not_null: NotNull,
    /// A CHECK that says the same as NOT NULL, if there is one; of several, a valid one.
    pub check: Option<Check>,
    /// The CHECK that an earlier step has added, and that a later one will drop.
    pub helper: Option<String>,
}

/// Whether a column is NOT NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNull {
    /// It is not.
    No,
    /// New rows are checked; existing rows are not validated yet (PostgreSQL 18).
    NotValid {
        /// The name of the constraint.
        constraint: String,
    },
    /// It is, and every row is known to be.
    Valid,
}

/// A CHECK constraint that a row passes exactly when the column is not NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Every row is known to pass.
    pub valid: bool,
}

/// What PostgreSQL can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// NOT NULL itself can be NOT VALID: from PostgreSQL 18 on.
    Constraint,
    /// NOT NULL is a flag of the column. Setting it reads the whole table, unless a valid CHECK proves it.
    Mark,
}

/// One step. Each is a transaction of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Add a CHECK that is not valid yet. Changes only the catalogs.
    AddCheck,
    /// Add a NOT NULL that is not valid yet. Changes only the catalogs.
    AddNotNull,
    /// Validate the constraint, which reads the table while others read and write it.
    Validate {
        /// The constraint.
        constraint: String,
    },
    /// Set NOT NULL, which does not read the table since the valid CHECK proves it; drop that helper.
    SetNotNull {
        /// The CHECK to be dropped.
        helper: Option<String>,
    },
    /// Drop the helper, which is not needed any more.
    DropHelper {
        /// The CHECK to be dropped.
        helper: String,
    },
    /// Nothing is left to be done.
    Done,
}

impl Nullness {
    /// The next step.
    pub fn next(&self, native: Native) -> Step {
        match (&self.not_null, &self.check, &self.helper) {
            (NotNull::Valid, _, Some(helper)) => Step::DropHelper {
                helper: helper.clone(),
            },
            (NotNull::Valid, _, None) => Step::Done,
            (NotNull::NotValid { constraint }, _, _) => Step::Validate {
                constraint: constraint.clone(),
            },
            (NotNull::No, Some(check), helper) if check.valid => Step::SetNotNull {
                helper: helper.clone(),
            },
            (NotNull::No, Some(check), _) if native == Native::Mark => Step::Validate {
                constraint: check.name.clone(),
            },
            (NotNull::No, _, _) => match native {
                Native::Constraint => Step::AddNotNull,
                Native::Mark => Step::AddCheck,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELPER: &str = "helper";

    /// What the catalogs say after a step.
    fn after(mut state: Nullness, step: &Step) -> Nullness {
        match step {
            Step::AddCheck => {
                state.check = Some(Check {
                    name: HELPER.into(),
                    valid: false,
                });
                state.helper = Some(HELPER.into());
            }
            Step::AddNotNull => {
                state.not_null = NotNull::NotValid {
                    constraint: "native".into(),
                };
            }
            Step::Validate { constraint } => match &mut state.check {
                Some(check) if check.name == *constraint => check.valid = true,
                _ => state.not_null = NotNull::Valid,
            },
            Step::SetNotNull { helper } => {
                assert!(
                    state.check.as_ref().is_some_and(|check| check.valid),
                    "would scan"
                );
                state.not_null = NotNull::Valid;
                state = without(state, helper.as_deref());
            }
            Step::DropHelper { helper } => state = without(state, Some(helper)),
            Step::Done => {}
        }
        state
    }

    fn without(mut state: Nullness, helper: Option<&str>) -> Nullness {
        if helper.is_some() {
            assert_eq!(helper, state.helper.as_deref());
            state.helper = None;
            state.check = state
                .check
                .filter(|check| Some(check.name.as_str()) != helper);
        }
        state
    }

    fn any_state() -> impl Strategy<Value = Nullness> {
        let not_null = prop_oneof![
            Just(NotNull::No),
            Just(NotNull::NotValid {
                constraint: "native".into()
            }),
            Just(NotNull::Valid)
        ];
        let check = proptest::option::of((any::<bool>(), any::<bool>()));
        (not_null, check).prop_map(|(not_null, check)| {
            let helper = check.and_then(|(ours, _)| ours.then(|| HELPER.to_owned()));
            let check = check.map(|(ours, valid)| Check {
                name: if ours { HELPER } else { "users" }.into(),
                valid,
            });
            Nullness {
                not_null,
                check,
                helper,
            }
        })
    }

    proptest! {
        #[test]
        fn from_anywhere_a_few_steps_lead_to_not_null(state in any_state(), native in any::<bool>()) {
            let native = if native { Native::Constraint } else { Native::Mark };
            let users = state.check.clone().filter(|check| check.name == "users");
            let mut state = state;
            let mut scans = 0;
            for _ in 0..5 {
                let step = state.next(native);
                scans += u32::from(matches!(step, Step::Validate { .. }));
                state = after(state, &step);
            }
            prop_assert_eq!(state.next(native), Step::Done);
            prop_assert_eq!(&state.not_null, &NotNull::Valid);
            prop_assert_eq!(&state.helper, &None);
            prop_assert!(scans <= 1);
            prop_assert_eq!(state.check.map(|check| check.name), users.map(|check| check.name));
        }
    }

    #[test]
    fn a_valid_check_of_the_users_is_used_and_kept() {
        let state = Nullness {
            not_null: NotNull::No,
            check: Some(Check {
                name: "mine".into(),
                valid: true,
            }),
            helper: None,
        };
        for native in [Native::Constraint, Native::Mark] {
            assert_eq!(state.next(native), Step::SetNotNull { helper: None });
        }
    }
}
