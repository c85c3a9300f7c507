//! `--save` and `--resume`: a training that may be stopped at any time.
//!
//! A checkpoint has the network and its steps. What else a run depends on is in its options, and follows from
//! the seed: the split of the data and the order of the examples are drawn again on the way to the saved epoch.

use std::path::{Path, PathBuf};

use fused_dropout::Error;
use fused_dropout::nn::{Mlp, MlpSpec};

use crate::data::Data;
use crate::options::Options;
use crate::report::count;
use crate::train::{Plan, steps};

/// Where a run starts, and where its network is saved.
#[derive(Default)]
pub(crate) struct Checkpoints {
    save: Option<PathBuf>,
    resumed: Option<Resumed>,
}

/// A network to go on with.
struct Resumed {
    name: String,
    mlp: Mlp,
    /// Epochs behind it.
    epochs: u32,
}

impl Checkpoints {
    /// Those that the options name, for a plan without them. Leaves the setting with dropout alone in it: a
    /// checkpoint is of one network.
    pub(crate) fn new(options: &Options, plan: &mut Plan, data: &Data) -> Result<Self, String> {
        let option = match (&options.save, &options.resume) {
            (None, None) => return Ok(Self::default()),
            (Some(_), _) => "--save",
            (None, Some(_)) => "--resume",
        };
        if plan.seeds != 1 {
            return Err(format!(
                "{option} is for one network, the one with dropout of one seed, but --seeds is {}: \
                 add --seeds 1",
                plan.seeds
            ));
        }
        plan.settings.drain(..plan.settings.len() - 1);
        if let Some(path) = &options.save {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let (path, folder) = (path.display(), folder.display());
                return Err(format!("--save {path}: there is no folder {folder}"));
            }
        }
        let resumed = match &options.resume {
            Some(path) => Some(Resumed::load(path, plan, data)?),
            None => None,
        };
        Ok(Self { save: options.save.clone(), resumed })
    }

    /// The network that the training starts with, and the epochs behind it.
    pub(crate) fn first(&self, spec: &MlpSpec) -> Result<(Mlp, u32), Error> {
        match &self.resumed {
            Some(Resumed { mlp, epochs, .. }) => Ok((mlp.clone(), *epochs)),
            None => Ok((Mlp::new(spec)?, 0)),
        }
    }

    /// Epochs behind the network that the training starts with.
    pub(crate) fn epochs(&self) -> u32 {
        self.resumed.as_ref().map_or(0, |resumed| resumed.epochs)
    }

    /// Saves the network that the training starts with, so that a bad path is known at once.
    pub(crate) fn save_first(&self, plan: &Plan) -> Result<(), String> {
        if self.save.is_none() {
            return Ok(());
        }
        let setting = &plan.settings[plan.settings.len() - 1];
        let spec = setting.spec.clone().with_seed(plan.first_seed);
        let (mlp, _) = self.first(&spec).map_err(|error| error.to_string())?;
        self.save(&mlp).map_err(|error| error.to_string())
    }

    /// Saves the network, if it is to be saved.
    pub(crate) fn save(&self, mlp: &Mlp) -> Result<(), Error> {
        self.save.as_ref().map_or(Ok(()), |path| mlp.save(path))
    }

    /// What to say before the training.
    pub(crate) fn heading(&self, plan: &Plan) -> Option<String> {
        let Resumed { name, epochs, .. } = self.resumed.as_ref()?;
        Some(format!("{name}: going on after {} of {}", count(*epochs, "epoch"), plan.epochs))
    }

    /// What to say after it; nothing if nothing is saved.
    pub(crate) fn closing(&self) -> String {
        let path = self.save.as_ref();
        path.map_or(String::new(), |path| format!("Checkpoint: {}\n", path.display()))
    }
}

impl Resumed {
    /// Loads a network that such a plan has trained for whole epochs.
    fn load(path: &Path, plan: &Plan, data: &Data) -> Result<Self, String> {
        let name = path.display().to_string();
        let mlp = Mlp::load(path).map_err(|error| match error {
            // It names the path.
            Error::File { .. } => error.to_string(),
            error => format!("{name}: {error}"),
        })?;
        let setting = &plan.settings[plan.settings.len() - 1];
        let spec = setting.spec.clone().with_seed(plan.first_seed);
        if let Some(difference) = difference(mlp.spec(), &spec) {
            return Err(format!("{name} {difference}"));
        }
        let an_epoch = steps(data.train, plan.batch, 1);
        let taken = u64::from(mlp.steps());
        if taken % an_epoch != 0 {
            return Err(format!(
                "{name} has taken {taken} steps, but an epoch has {an_epoch}: another --train or --batch"
            ));
        }
        let epochs = taken / an_epoch;
        if epochs > u64::from(plan.epochs) {
            return Err(format!(
                "{name} has trained for {epochs} epochs, but --epochs is {}",
                plan.epochs
            ));
        }
        Ok(Self { name, mlp, epochs: epochs as u32 })
    }
}

/// How the spec of a checkpoint differs from that of the options.
fn difference(saved: &MlpSpec, planned: &MlpSpec) -> Option<String> {
    fn show(spec: &MlpSpec) -> [(&'static str, String); 8] {
        [
            ("layers of", format!("{:?}", spec.sizes)),
            ("the activation", format!("{:?}", spec.activation)),
            ("the input rate", spec.input_rate.to_string()),
            ("the hidden rate", spec.hidden_rate.to_string()),
            ("the granularities", format!("{:?}", spec.granularity)),
            ("the scaling", format!("{:?}", spec.scaling)),
            ("the seed", spec.seed.to_string()),
            ("the spec", format!("{spec:?}")),
        ]
    }
    let pairs = show(saved).into_iter().zip(show(planned));
    let mut differences = pairs.filter(|(saved, planned)| saved != planned);
    let ((what, saved), (_, planned)) = differences.next()?;
    Some(format!("has {what} {saved}, but the options ask for {planned}"))
}
