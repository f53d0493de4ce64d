"""The names of all files and folders in a run folder."""

CONFIG_FILE = "config.yaml"
CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = ".lock"
MANIFEST_FILE = ".written"  # the names of all files that the run wrote
HISTORY_FILE = "history.jsonl"
EVENT_FILES = "events.out.tfevents.*"  # of TensorBoard
GENOTYPE_FILE = "genotype.yaml"
CARD_FILE = "README.md"  # of a network that is published
WEIGHTS_FILE = "weights.safetensors"
LAST_WEIGHTS_FILE = "weights-last.safetensors"
LATENCY_FILE = "latency.yaml"
RATES_FILE = "rates.yaml"
SPECIFICATION_FILE = "specification.yaml"
STUDY_FILE = "study.yaml"
VERIFICATION_FILE = "verification.csv"
REPORT_FILE = "report.html"

PICTURES_FOLDER = "pictures"
FIRST_STAGE_FOLDER = "first_stage"  # the network whose output a refine network refines
TASK_FOLDER = "task"  # the task network
DETECTORS_FOLDER = "detectors"  # the detectors whose attention modulates the fusion network
TRIALS_FOLDER = "trials"  # of a study
SEED_FOLDERS = "seed-*"  # of a search with several seeds, a run folder for each
FRONT_FOLDER = "front"  # of a search, with a network folder for each budget
VERIFICATION_FOLDER = "verification"  # of a search, with the trainings of its candidates
