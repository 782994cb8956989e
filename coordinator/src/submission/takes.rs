//! One submission, several jobs that differ in their parameters: takes with other seeds, and wedges, which try values of
//! parameters beside each other.

use hearth_proto::v1;
use hearth_workflows::{Workflow, manifest::SplitRule, parameters::ParameterTexts};

use super::{SubmissionError, in_force, split};

/// Takes of one submission.
const MOST: usize = 100;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Take {
    /// For people: `take 3`, `denoise=0.5 steps=20`; empty: it is the only one.
    pub(super) label: String,
    /// Its folder in the output; empty: the output itself.
    pub(super) folder: String,
    pub(super) parameters: ParameterTexts,
}

/// The takes that a request asks for, with wedges as [`complete`] leaves them; `parameters` are in force for all of them.
pub(super) fn of(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    parameters: &ParameterTexts,
) -> Result<Vec<Take>, SubmissionError> {
    match (request.wedges.as_slice(), request.takes) {
        ([], 0 | 1) => {
            let parameters = parameters.clone();
            Ok(vec![Take { label: String::new(), folder: String::new(), parameters }])
        }
        ([], takes) => seeds(workflow, parameters, takes as usize),
        (wedges, 0 | 1) => combinations(workflow, parameters, wedges),
        _ => Err(no_takes(workflow, "takes and wedges exclude each other")),
    }
}

fn no_takes(workflow: &Workflow, why: &'static str) -> SubmissionError {
    SubmissionError::NoTakes { workflow: workflow.name().to_owned(), why }
}

/// The wedges are in order. What only they give need not be given twice: the first of their values counts until takes
/// are made.
pub(super) fn complete(
    given: &mut ParameterTexts,
    wedges: &[v1::Wedge],
    workflow: &Workflow,
) -> Result<(), SubmissionError> {
    for wedge in wedges {
        let first = wedge.values.first().ok_or_else(|| no_takes(workflow, "a wedge has no values"))?;
        if wedges.iter().filter(|other| other.parameter == wedge.parameter).count() > 1 {
            return Err(no_takes(workflow, "the parameter of a wedge stands twice"));
        }
        given.entry(wedge.parameter.clone()).or_insert_with(|| first.clone());
    }
    Ok(())
}

fn check_count(count: usize) -> Result<(), SubmissionError> {
    if count > MOST {
        return Err(SubmissionError::TooMany { what: "takes", count, limit: MOST });
    }
    Ok(())
}

/// The first has the seed given, and each has one higher than the one before.
fn seeds(
    workflow: &Workflow,
    parameters: &ParameterTexts,
    count: usize,
) -> Result<Vec<Take>, SubmissionError> {
    check_count(count)?;
    let no_takes = |why| no_takes(workflow, why);
    let seed = match &workflow.manifest().split {
        SplitRule::Generate { seed: Some(seed), .. } => seed,
        SplitRule::Generate { .. } => return Err(no_takes("its manifest names no seed")),
        _ => return Err(no_takes("it works on a clip")),
    };
    let first = parameters.get(seed).and_then(|text| text.trim().parse::<i64>().ok());
    let first = first.ok_or_else(|| no_takes("its seed is no number"))?;
    (0..count)
        .map(|take| {
            let mut parameters = parameters.clone();
            let value = first.checked_add(take as i64).ok_or_else(|| no_takes("its seed is too high"))?;
            parameters.insert(seed.clone(), value.to_string());
            let (label, folder) = (format!("take {}", take + 1), format!("take{:02}", take + 1));
            Ok(Take { label, folder, parameters: in_force(workflow, parameters)? })
        })
        .collect()
}

/// Every combination of the wedges' values, the first wedge's changing slowest.
fn combinations(
    workflow: &Workflow,
    parameters: &ParameterTexts,
    wedges: &[v1::Wedge],
) -> Result<Vec<Take>, SubmissionError> {
    let count = wedges.iter().map(|wedge| wedge.values.len()).try_fold(1, usize::checked_mul);
    check_count(count.unwrap_or(usize::MAX))?;
    let base = split(workflow, parameters)?;
    let mut all = vec![(Vec::<(&str, &str)>::new(), parameters.clone())];
    for wedge in wedges {
        let tried = |(values, parameters): (Vec<(_, _)>, ParameterTexts)| {
            wedge.values.iter().map(move |value| {
                let (mut values, mut parameters) = (values.clone(), parameters.clone());
                values.push((wedge.parameter.as_str(), value.as_str()));
                parameters.insert(wedge.parameter.clone(), value.clone());
                (values, parameters)
            })
        };
        all = all.into_iter().flat_map(tried).collect();
    }
    let mut takes: Vec<Take> = Vec::with_capacity(all.len());
    for (values, parameters) in all {
        let parameters = in_force(workflow, parameters)?;
        // All takes are of the same frames.
        if split(workflow, &parameters)? != base {
            return Err(no_takes(workflow, "a wedge changes how many frames there are"));
        }
        let label: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let plain = |text: &str| {
            let kept = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
            text.trim().chars().map(kept).take(40).collect::<String>().trim_matches('.').to_owned()
        };
        let folder: Vec<String> =
            values.iter().map(|(name, value)| format!("{}-{}", plain(name), plain(value))).collect();
        let mut folder = folder.join("_");
        // Two long texts may begin alike.
        if takes.iter().any(|take| take.folder == folder) {
            folder = format!("{folder}_{}", takes.len() + 1);
        }
        takes.push(Take { label: label.join(" "), folder, parameters });
    }
    Ok(takes)
}

#[cfg(test)]
mod tests {
    use hearth_workflows::library::Library;

    use super::*;

    fn wedge(parameter: &str, values: &[&str]) -> v1::Wedge {
        v1::Wedge {
            parameter: parameter.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }
    }

    fn takes(workflow: &str, wedges: Vec<v1::Wedge>) -> Result<Vec<Take>, String> {
        let library = Library::read::<&str>(&[]);
        let workflow = library.get(workflow).expect("it ships with Hearth");
        let request = v1::SubmitJobRequest { wedges, ..v1::SubmitJobRequest::default() };
        let made = || {
            let mut given = ParameterTexts::new();
            complete(&mut given, &request.wedges, workflow)?;
            of(&request, workflow, &in_force(workflow, given)?)
        };
        made().map_err(|error| hearth_telemetry::chain(&error))
    }

    #[test]
    fn every_combination_is_a_take_with_a_folder_of_its_own() {
        let made = takes("film-look", vec![wedge("grain", &["0.2", "1"]), wedge("look", &["noir", "none"])])
            .expect("takes");
        let told: Vec<_> = made.iter().map(|take| (take.label.as_str(), take.folder.as_str())).collect();
        assert_eq!(
            told,
            [
                ("grain=0.2 look=noir", "grain-0.2_look-noir"),
                ("grain=0.2 look=none", "grain-0.2_look-none"),
                ("grain=1 look=noir", "grain-1_look-noir"),
                ("grain=1 look=none", "grain-1_look-none"),
            ]
        );
        assert_eq!(made[3].parameters["vignette"], "0.2", "the others have their defaults");
        let prompts =
            takes("style-transfer", vec![wedge("prompt", &["a/b: oil", "a b, oil"])]).expect("takes");
        assert_ne!(prompts[0].folder, prompts[1].folder);
        assert!(prompts.iter().all(|take| !take.folder.contains(['/', ':'])));
    }

    #[test]
    fn what_cannot_be_wedged_is_told() {
        let values: Vec<String> = (0..11).map(|n| format!("0.{n}")).collect();
        let many: Vec<&str> = values.iter().map(String::as_str).collect();
        for (workflow, wedges, told) in [
            ("film-look", vec![wedge("grain", &["3"])], "3 is out of range"),
            ("film-look", vec![wedge("grian", &["1"])], "no parameter 'grian'"),
            ("film-look", vec![wedge("grain", &[])], "has no values"),
            ("film-look", vec![wedge("grain", &["1"]), wedge("grain", &["2"])], "stands twice"),
            ("film-look", vec![wedge("grain", &many), wedge("vignette", &many)], "121 takes at once"),
            ("rife-interpolation", vec![wedge("factor", &["2", "4"])], "changes how many frames"),
        ] {
            let refused = takes(workflow, wedges).expect_err(told);
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }
}
