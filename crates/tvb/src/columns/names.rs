//! Whose name is whose: what wrappers and heads put before (or into) the names of the same tensors, found from names and
//! shapes alone.
//!
//! Training saves `module.x`, `_orig_mod.x` or `bert.x` for what the base calls `x`, or the other way round. A way of matching is
//! a level of wrappers' segments that are left out anywhere, and one lead on each side that stands for the other. The way that
//! matches most tensors of equal shape is taken; two ways that match as many in different manners are for the user to decide.

use crate::shown::shown;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// A tensor, as far as matching asks.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
}

/// Names that match in two ways, equally well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// Either way.
    pub ways: [Leads; 2],
}

/// What one way takes off the task's names, and what it puts before them in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leads {
    /// As it stands in the task's names; may be empty.
    pub taken_off: String,
    /// As it stands in the base's; may be empty.
    pub put_before: String,
}

impl Leads {
    fn of(way: &Way<'_>) -> Leads {
        Leads { taken_off: way.task_lead.to_owned(), put_before: way.base_lead.to_owned() }
    }

    /// For messages: "with `module.` taken off".
    pub fn in_words(&self) -> String {
        let [off, before] = [&self.taken_off, &self.put_before].map(|lead| shown(lead));
        match (self.taken_off.is_empty(), self.put_before.is_empty()) {
            (true, true) => "as they are".to_owned(),
            (false, true) => format!("with {off} taken off"),
            (true, false) => format!("with {before} put before them"),
            (false, false) => format!("with {before} in place of {off}"),
        }
    }
}

/// Names that were matched otherwise than as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The task's names in the base's manner, in the task's order; `None` where that would be another tensor's name.
    pub names: Vec<Option<String>>,
    /// Where one side is the body of the other: the task's tensors beside the body, which the base lacks, as positions.
    pub task_head: Vec<usize>,
    /// The same of the base's tensors, which the task lacks.
    pub base_head: Vec<usize>,
}

/// What wrappers put before every name of what they wrap.
const WRAPPERS: [&str; 7] =
    ["module.", "_orig_mod.", "model.", "base_model.model.", "ema_model.", "_forward_module.", "network."];
/// Segments that wrappers of submodules put into names, by how surely they are none of the model's own.
const LEVELS: [&[&str]; 3] = [
    &[],
    &["_orig_mod"],
    &["_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"],
];
/// Segments of wrappers' leads that are no module of a model: `bert.` and `model.` can be a model's body beside its head.
const NO_BODY: [&str; 6] = ["module", "_orig_mod", "base_model", "ema_model", "_forward_module", "network"];
/// A module of bodies that models with a head often leave out.
const POOLER: &str = "pooler";
/// Segments that a lead may have.
const DEPTH_MAX: usize = 8;
/// Longer names are matched as they are: what is looked at grows with the square of a name.
const NAME_BYTES_MAX: usize = 1024;
/// Wrappers' leads that are tried on a side.
const N_LEADS_MAX: usize = 8;
/// Equally good ways that are compared with each other.
const N_TIES_MAX: usize = 16;

/// How many tensors a way matches: those of equal shape, and all.
type Score = (usize, usize);

/// One way of matching.
#[derive(Clone, Copy, Debug)]
struct Way<'a> {
    level: usize,
    /// Stands before the common part of a name in the base, and in the task.
    base_lead: &'a str,
    task_lead: &'a str,
    score: Score,
}

/// Names without the segments of a level, and where each stands.
struct Keys<'a> {
    keys: Vec<Cow<'a, str>>,
    shapes: Vec<&'a [usize]>,
}

/// The names of the task's tensors in the base's manner: `None` where they are as they should be. Those of tensors that the base
/// lacks are changed like the others.
///
/// # Errors
/// Two ways match equally many tensors.
pub fn names_in_base(base: &[Named<'_>], task: &[Named<'_>]) -> std::result::Result<Option<Matched>, Ambiguous> {
    let as_they_are = score_of(&Keys::new(base, 0), &Keys::new(task, 0));
    if as_they_are == (base.len(), base.len()) || base.is_empty() || task.is_empty() {
        return Ok(None);
    }
    let levels: Vec<(usize, Keys<'_>, Keys<'_>)> = (0..LEVELS.len())
        .map(|level| (level, Keys::new(base, level), Keys::new(task, level)))
        .filter(|(level, base, task)| *level == 0 || (base.differ() && task.differ()))
        .collect();
    let leads: Vec<(Vec<String>, Vec<String>)> =
        levels.iter().map(|(_, base, task)| (wrapper_leads(base), wrapper_leads(task))).collect();
    let mut ways: Vec<Way<'_>> = Vec::new();
    for ((level, base_keys, task_keys), (base_leads, task_leads)) in levels.iter().zip(&leads) {
        ways.extend(ways_of(*level, base_keys, task_keys, base_leads, task_leads));
    }
    let n_smaller = base.len().min(task.len());
    let is_wrapper = |lead: &str| lead.is_empty() || leads_of(lead).last().is_some_and(|all| *all == lead);
    ways.retain(|way| {
        let (needed, of) = if is_wrapper(way.base_lead) && is_wrapper(way.task_lead) { (1, 2) } else { (9, 10) };
        way.score > as_they_are && of * way.score.1 >= needed * n_smaller
    });
    let Some(most) = ways.iter().map(|way| way.score).max() else { return Ok(None) };
    ways.retain(|way| way.score == most);
    ways.sort_by_key(|way| (way.level, way.base_lead.len() + way.task_lead.len(), way.task_lead, way.base_lead));
    let named = |way: &Way<'_>| {
        let keys = levels.iter().find(|(level, ..)| *level == way.level);
        keys.map_or_else(Vec::new, |(_, base_keys, task_keys)| in_base(base, task, (base_keys, task_keys), way))
    };
    let Some((first, rest)) = ways.split_first() else { return Ok(None) };
    let names = named(first);
    let base_names: HashSet<&str> = base.iter().map(|tensor| tensor.name).collect();
    let matched = |names: &[Option<String>]| -> Vec<Option<String>> {
        names.iter().map(|name| name.clone().filter(|name| base_names.contains(name.as_str()))).collect()
    };
    let other = rest.iter().take(N_TIES_MAX).find(|way| matched(&named(way)) != matched(&names));
    match other {
        // Names that some other model's happen to end in: what does not match is listed as it stands.
        Some(_) if most.0 == 0 => Ok(None),
        Some(other) => Err(Ambiguous { ways: [Leads::of(first), Leads::of(other)] }),
        None => {
            let keys = levels.iter().find(|(level, ..)| *level == first.level);
            let heads = keys.map(|(_, base_keys, task_keys)| heads(base, &names, (base_keys, task_keys), first));
            let (task_head, base_head) = heads.unwrap_or_default();
            Ok(Some(Matched { names, task_head, base_head }))
        }
    }
}

/// The tensors beside the body of a model that has a head, on either side, where the other side is such a body: positions of
/// the task's tensors that the base lacks, and of the base's that the task lacks. A second copy of the body is no head.
fn heads(
    base: &[Named<'_>],
    names: &[Option<String>],
    keys: (&Keys<'_>, &Keys<'_>),
    way: &Way<'_>,
) -> (Vec<usize>, Vec<usize>) {
    if is_body(way.base_lead) == is_body(way.task_lead) {
        return Default::default();
    }
    let (base_keys, task_keys) = keys;
    let own: HashSet<&str> = base.iter().map(|tensor| tensor.name).collect();
    let named: HashSet<&str> = names.iter().flatten().map(String::as_str).collect();
    let beside = |lead: &str, key: &str| match key.strip_prefix(lead) {
        Some(rest) => rest.split('.').next() == Some(POOLER),
        None => is_body(lead),
    };
    let body = base_keys.behind(way.base_lead);
    let is_copy = |key: &str, shape: &[usize]| {
        key.len() > NAME_BYTES_MAX
            || key
                .match_indices('.')
                .take(DEPTH_MAX)
                .any(|(at, _)| key.get(at + 1..).and_then(|rest| body.get(rest)).is_some_and(|found| *found == shape))
    };
    let of_task = task_keys.iter().zip(names).enumerate().filter(|(_, ((key, shape), name))| {
        let is_new = name.as_deref().is_some_and(|name| !own.contains(name));
        is_new && beside(way.task_lead, key) && !is_copy(key, shape)
    });
    let of_base = base_keys.iter().zip(base).enumerate().filter(|(_, ((key, shape), tensor))| {
        let is_alone = !named.contains(tensor.name) && beside(way.base_lead, key);
        is_alone && (key.starts_with(way.base_lead) || !is_copy(key, shape))
    });
    (of_task.map(|(index, _)| index).collect(), of_base.map(|(index, _)| index).collect())
}

/// Whether a lead names a module of the model, and not only what was wrapped around it.
fn is_body(lead: &str) -> bool {
    let lead = lead.replace("base_model.model.", "");
    lead.split('.').any(|segment| !segment.is_empty() && !NO_BODY.contains(&segment))
}

impl<'a> Keys<'a> {
    fn new(tensors: &[Named<'a>], level: usize) -> Keys<'a> {
        let left_out = LEVELS.get(level).copied().unwrap_or_default();
        let key = |name: &'a str| {
            let is_plain = left_out.is_empty()
                || name.len() > NAME_BYTES_MAX
                || !name.split('.').any(|segment| left_out.contains(&segment));
            if is_plain {
                return Cow::Borrowed(name);
            }
            let kept: Vec<&str> = name.split('.').filter(|segment| !left_out.contains(segment)).collect();
            Cow::Owned(kept.join("."))
        };
        Keys {
            keys: tensors.iter().map(|tensor| key(tensor.name)).collect(),
            shapes: tensors.iter().map(|tensor| tensor.shape).collect(),
        }
    }

    /// Whether no two of them are the same.
    fn differ(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.keys.len());
        self.keys.iter().all(|key| seen.insert(key.as_ref()))
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &'a [usize])> {
        self.keys.iter().map(Cow::as_ref).zip(self.shapes.iter().copied())
    }

    /// Shapes by what follows `lead`, of the names that have it.
    fn behind<'b>(&'b self, lead: &str) -> HashMap<&'b str, &'a [usize]> {
        self.iter().filter_map(|(key, shape)| Some((key.strip_prefix(lead)?, shape))).collect()
    }
}

/// How many names are the same as they are.
fn score_of(base: &Keys<'_>, task: &Keys<'_>) -> Score {
    let shapes = base.behind("");
    task.iter().fold((0, 0), |score, (key, shape)| counted(score, shapes.get(key).copied(), shape))
}

fn counted((n_same, n): Score, found: Option<&[usize]>, shape: &[usize]) -> Score {
    match found {
        Some(found) => (n_same + usize::from(found == shape), n + 1),
        None => (n_same, n),
    }
}

/// Every way of one level in which some name matches: a wrapper's lead (or none) on one side, any lead on the other.
fn ways_of<'a>(
    level: usize,
    base: &'a Keys<'_>,
    task: &'a Keys<'_>,
    base_leads: &'a [String],
    task_leads: &'a [String],
) -> Vec<Way<'a>> {
    let mut scores: HashMap<(&str, &str), Score> = HashMap::new();
    let mut add = |found: HashMap<(&'a str, &'a str), Score>| {
        for (leads, score) in found {
            let known = scores.entry(leads).or_default();
            *known = (*known).max(score);
        }
    };
    for base_lead in base_leads {
        let behind = base.behind(base_lead);
        add(scores_of(&behind, task, |task_lead| (base_lead.as_str(), task_lead)));
    }
    for task_lead in task_leads {
        let behind = task.behind(task_lead);
        add(scores_of(&behind, base, |base_lead| (base_lead, task_lead.as_str())));
    }
    let way = |((base_lead, task_lead), score)| Way { level, base_lead, task_lead, score };
    scores.into_iter().map(way).collect()
}

/// For every lead of `others`' names: how many of them follow it with one of the names in `behind`.
fn scores_of<'a>(
    behind: &HashMap<&str, &[usize]>,
    others: &'a Keys<'_>,
    leads: impl Fn(&'a str) -> (&'a str, &'a str),
) -> HashMap<(&'a str, &'a str), Score> {
    let mut scores: HashMap<(&str, &str), Score> = HashMap::new();
    for (key, shape) in others.iter().filter(|(key, _)| key.len() <= NAME_BYTES_MAX) {
        let ends = key.match_indices('.').map(|(at, _)| at + 1).take(DEPTH_MAX);
        for (lead, rest) in std::iter::once(0).chain(ends).filter_map(|end| key.split_at_checked(end)) {
            if let Some(found) = behind.get(rest) {
                let score = scores.entry(leads(lead)).or_default();
                *score = counted(*score, Some(*found), shape);
            }
        }
    }
    scores
}

/// No lead, and the leads of wrappers around wrappers that most names of these have.
fn wrapper_leads(keys: &Keys<'_>) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (key, _) in keys.iter() {
        for lead in leads_of(key) {
            *counts.entry(lead).or_default() += 1;
        }
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let leads = counts.into_iter().take(N_LEADS_MAX).map(|(lead, _)| lead.to_owned());
    std::iter::once(String::new()).chain(leads).collect()
}

/// The wrappers' leads of one name: `module.`, `module.model.` of `module.model.x`.
fn leads_of(name: &str) -> Vec<&str> {
    let mut leads = Vec::new();
    let mut end = 0;
    while leads.len() < DEPTH_MAX {
        let rest = name.get(end..).unwrap_or_default();
        let Some(wrapper) = WRAPPERS.iter().find(|wrapper| rest.starts_with(**wrapper)) else { break };
        end += wrapper.len();
        leads.extend(name.get(..end));
    }
    leads
}

/// The task's names as one way of matching has them.
fn in_base(base: &[Named<'_>], task: &[Named<'_>], keys: (&Keys<'_>, &Keys<'_>), way: &Way<'_>) -> Vec<Option<String>> {
    let (base_keys, task_keys) = keys;
    let own: HashMap<&str, &str> = base_keys.keys.iter().map(Cow::as_ref).zip(base.iter().map(|b| b.name)).collect();
    let through = |key: &str| key.strip_prefix(way.task_lead).map(|core| format!("{}{core}", way.base_lead));
    let mut taken: HashSet<String> = HashSet::with_capacity(task.len());
    let mut names: Vec<Option<String>> = vec![None; task.len()];
    // What the way matches comes first, then what has the base's name already, then what the base lacks.
    let mut give = |candidate: &dyn Fn(usize, &str) -> Option<String>| {
        for ((index, key), place) in task_keys.keys.iter().enumerate().zip(names.iter_mut()) {
            if place.is_none()
                && let Some(name) = candidate(index, key)
                && taken.insert(name.clone())
            {
                *place = Some(name);
            }
        }
    };
    give(&|_, key| own.get(through(key)?.as_str()).map(|name| (*name).to_owned()));
    give(&|_, key| own.get(key).map(|name| (*name).to_owned()));
    give(&|_, key| through(key));
    give(&|index, _| task.get(index).map(|tensor| tensor.name.to_owned()));
    names
}

/// What was changed of a name: what its place had before, and what it has now, where both are alike around it.
pub fn change<'a>(before: &'a str, after: &'a str) -> (&'a str, &'a str) {
    let segments = |text: &'a str| -> Vec<&'a str> { text.split('.').collect() };
    let (old, new) = (segments(before), segments(after));
    let alike = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| -> Vec<usize> {
        pairs.take_while(|(a, b)| a == b).map(|(segment, _)| segment.len() + 1).collect()
    };
    let behind = alike(&mut old.iter().rev().zip(new.iter().rev()));
    let n_left = old.len().min(new.len()) - behind.len();
    let front: usize = alike(&mut old.iter().zip(&new).take(n_left)).iter().sum();
    let n_behind = behind.iter().sum::<usize>().saturating_sub(1);
    let between = |text: &'a str| text.get(front..text.len() - n_behind).unwrap_or_default();
    (between(before), between(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [&[usize]; 3] = [&[2], &[3, 4], &[]];

    fn named<'a>(names: &'a [&'a str]) -> Vec<Named<'a>> {
        // A shape by the name's end, so that the same tensor has the same everywhere.
        let shape = |name: &str| SHAPES[name.bytes().last().map_or(0, |byte| usize::from(byte) % 3)];
        names.iter().map(|name| Named { name, shape: shape(name) }).collect()
    }

    fn matched(base: &[&str], task: &[&str]) -> Vec<String> {
        let names = names_in_base(&named(base), &named(task)).unwrap().map(|matched| matched.names);
        let own = || task.iter().map(|name| Some((*name).to_owned())).collect();
        names.unwrap_or_else(own).into_iter().map(|name| name.unwrap_or_else(|| "-".into())).collect()
    }

    #[test]
    fn wrappers_on_either_side_are_seen_through() {
        let plain = ["a.w", "a.b", "c.w"];
        for lead in
            ["module.", "_orig_mod.", "model.", "base_model.model.", "ema_model.", "_forward_module.", "network."]
        {
            for nested in [lead.to_owned(), format!("module.{lead}"), format!("{lead}_orig_mod.")] {
                let wrapped: Vec<String> = plain.iter().map(|name| format!("{nested}{name}")).collect();
                let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
                assert_eq!(matched(&plain, &wrapped), plain, "{nested}");
                assert_eq!(matched(&wrapped, &plain), wrapped, "{nested}");
                let other = ["network.a.w", "network.a.b", "network.c.w"];
                assert_eq!(matched(&wrapped, &other), wrapped, "{nested}");
            }
        }
    }

    #[test]
    fn names_that_fit_stay_and_infixes_go() {
        assert_eq!(names_in_base(&named(&["model.a", "b"]), &named(&["model.a", "b", "c"])).unwrap(), None);
        let base = ["a.0.w", "a.1.w", "b.w"];
        assert_eq!(matched(&base, &["a._orig_mod.0.w", "a._orig_mod.1.w", "b.w"]), base);
        assert_eq!(matched(&base, &["module.a.module.0.w", "module.a.module.1.w", "module.b.w"]), base);
        // The base's own `module` stays its own.
        let own = ["a.module.w", "a.w", "b.w"];
        assert_eq!(matched(&own, &["module.a.module.w", "module.a.w", "module.b.w", "n_averaged"])[..3], own);
    }

    #[test]
    fn heads_and_headless_models_match() {
        let base = ["embeddings.w", "encoder.0.w", "encoder.0.b", "pooler.w"];
        let task = ["bert.embeddings.w", "bert.encoder.0.w", "bert.encoder.0.b", "bert.pooler.w", "classifier.w"];
        assert_eq!(matched(&base, &task), [&base[..], &["classifier.w"]].concat());
        assert_eq!(matched(&task, &base), task[..4]);
        let heads = |base: &[&str], task: &[&str]| {
            let matched = names_in_base(&named(base), &named(task)).unwrap().unwrap();
            (matched.task_head, matched.base_head)
        };
        assert_eq!(heads(&base, &task), (vec![4], vec![]));
        assert_eq!(heads(&task, &base), (vec![], vec![4]));
        // A body without its pooler, and one that was wrapped.
        assert_eq!(heads(&base, &task[..3]), (vec![], vec![3]));
        let wrapped: Vec<String> = task.iter().map(|name| format!("module.{name}")).collect();
        let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
        assert_eq!(heads(&base, &wrapped), (vec![4], vec![]));
        // Not beside a body: a wrapper alone, one more tensor of the body, another copy of a part of it.
        let module = ["module.embeddings.w", "module.encoder.0.w", "module.encoder.0.b", "module.pooler.w", "head.w"];
        assert_eq!(heads(&base, &module), (vec![], vec![]));
        let more = [&task[..4], &["bert.encoder.1.w", "teacher.encoder.0.w"]].concat();
        assert_eq!(heads(&base, &more), (vec![], vec![]));
        // Names of another model stay what they are.
        assert_eq!(matched(&base, &["x.w", "y.b", "bert.pooler.w"]), ["x.w", "y.b", "bert.pooler.w"]);
    }

    #[test]
    fn two_equal_ways_are_nobody_s_choice() {
        let base = ["layers.0.w", "layers.0.b"];
        let task = ["encoder.layers.0.w", "encoder.layers.0.b", "decoder.layers.0.w", "decoder.layers.0.b"];
        let error = names_in_base(&named(&base), &named(&task)).unwrap_err();
        assert_eq!(error.ways.each_ref().map(|way| way.taken_off.as_str()), ["decoder.", "encoder."]);
        assert_eq!(error.ways[0].in_words(), "with `decoder.` taken off");
        // The base's own names come before a wrapper's copy of them.
        let both = ["layers.0.w", "layers.0.b", "ema_model.layers.0.w", "ema_model.layers.0.b"];
        assert_eq!(matched(&base, &both), both);
    }

    #[test]
    fn what_another_model_s_names_happen_to_end_in_matches_nothing() {
        let named = |name, shape: &'static [usize]| Named { name, shape };
        let base = [named("a.w", &[2]), named("b.w", &[2]), named("c.v", &[2])];
        assert_eq!(names_in_base(&base, &[named("w", &[3])]), Ok(None));
        let error = names_in_base(&base, &[named("w", &[2])]).unwrap_err();
        assert_eq!(
            error.ways.each_ref().map(Leads::in_words),
            ["with `a.` put before them", "with `b.` put before them"]
        );
    }

    #[test]
    fn no_two_tensors_get_one_name() {
        let names = matched(&["a.w", "b.w", "c.b"], &["module.a.w", "module.b.w", "module.c.b", "a.w"]);
        assert_eq!(names, ["a.w", "b.w", "c.b", "-"]);
    }

    #[test]
    fn changes_are_told_by_whole_segments() {
        for (before, after, expected) in [
            ("module.a.w", "a.w", ("module.", "")),
            ("a.w", "bert.a.w", ("", "bert.")),
            ("a._orig_mod.b.w", "a.b.w", ("_orig_mod.", "")),
            ("network.a.w", "model.a.w", ("network.", "model.")),
            ("xa.w", "a.w", ("xa.", "a.")),
            ("a", "b", ("a", "b")),
        ] {
            assert_eq!(change(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn long_names_take_no_long_time() {
        let long = "a.".repeat(500_000);
        let base = [long.as_str(), "b.w"];
        assert_eq!(matched(&base, &["module.b.w"]), ["b.w"]);
    }
}
