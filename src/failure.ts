/**
 * Every way Plinth can refuse, in one table: a stable code, the HTTP status it becomes, what happened, and what to do next.
 * Any folder may import this file and nothing else above it does; `{name}` is filled from the details given where it is thrown.
 * docs/errors.md lists the same codes (a test compares them).
 */
export const failures = {
  // ── command line ──
  usage: [400, '{problem}', 'Run plinth {command} --help.'],
  unknown_command: [400, 'There is no command called {command}.{hint}', 'Run plinth --help for the list.'],
  interrupted: [499, 'Stopped on request.', '{next}'],
  node_too_old: [
    500,
    'Plinth needs Node {needed} or newer; this is Node {found}.',
    'Install a current Node (nodejs.org, or: nvm install {needed}).',
  ],
  internal: [
    500,
    'Something in Plinth broke: {problem}',
    'This is a bug. Please report it with the command; PLINTH_DEBUG=1 in front of it prints where it broke.',
  ],

  // ── engine ──
  shape_mismatch: [400, 'Shapes do not fit in {operation}: {a} and {b}.', 'Check the shapes of what you pass in.'],
  onnx_malformed: [400, 'This is not a sound ONNX file: {problem}.', 'Export or download the model again; the file may be cut short.'],
  onnx_external_data: [
    400,
    'The tensor {name} keeps its data in another file, which Plinth does not open.',
    'Save the model as one file (onnx.save with save_as_external_data=False).',
  ],
  onnx_unsupported: [
    400,
    'This ONNX file uses something Plinth does not read: {problem}.',
    'Export the model with plain operations of opset 18.',
  ],
  onnx_duplicate_name: [400, 'Two things in one graph are called {name}.', 'Give inputs and parameters names of their own.'],
  loss_not_scalar: [
    400,
    'A gradient needs a loss that is one number; this one has the shape {shape}.',
    'Reduce it with reduceSum or reduceMean over all axes.',
  ],
  weights_missing: [400, 'There is no value for the parameter {name}.', 'Pass weights for every parameter of the graph.'],
  weights_mismatch: [
    400,
    'The weight {name} has {found} numbers where {expected} are needed.',
    'Check that the weights belong to this model.',
  ],
  feed_missing: [400, 'The input {name} was not given.', 'Pass a tensor for each of: {inputs}.'],
  feed_mismatch: [400, 'The input {name} does not fit: {problem}.', 'Pass {expected}.'],
  input_not_finite: [400, 'The input {name} holds {value} at row {row}.', 'Remove or replace missing and infinite values first.'],
  loss_not_finite: [400, 'The loss became {loss} at step {step}.', 'Use a lower learning rate, or look for extreme values in the data.'],
  dynamic_batch_unsupported: [
    400,
    '{operation} mixes the batch with another axis, so the batch size cannot be left open.',
    'Export with dynamicBatch: false, or keep the batch on an axis of its own.',
  ],
  safetensors_malformed: [400, 'This is not a sound safetensors file: {problem}.', 'Download it again; the file may be cut short.'],
  checkpoint_damaged: [500, 'The checkpoint {path} is damaged.', 'Start the training again; what was registered before is unharmed.'],
  layers_invalid: [400, 'The layers do not make a model: {problem}.', 'See docs/engine-api.md.'],
  rows_invalid: [400, 'The rows do not fit the model: {problem}.', 'Pass one array of {expected} numbers a row.'],
  option_invalid: [400, 'The option {option} is {value}.', 'It must be {allowed}.'],
  loss_unknown: [400, 'This model has no loss yet.', 'Pass { loss } in the options, or call fit first.'],

  // ── backbones and their weights ──
  torch_file_refused: [
    400,
    'Plinth does not open this PyTorch file: {problem}.',
    'Save the weights alone, with torch.save(model.state_dict(), path), or as safetensors.',
  ],
  torch_file_malformed: [400, 'This is not a sound PyTorch file: {problem}.', 'Download or save it again; the file may be cut short.'],
  backbone_unknown: [404, 'There is no backbone called {id}.', 'Choose one of: {known}.'],
  image_size_unsupported: [
    400,
    '{id} cannot take pictures of {size} pixels.',
    'Choose a multiple of {multiple} from {smallest} to {largest}.',
  ],
  weights_file_unreadable: [
    400,
    'The weights file {path} cannot be read: {problem}.',
    'Check the path and the rights; the endings .safetensors, .pth, .pt and .bin are known.',
  ],
  weights_unsuitable: [
    400,
    'The file {path} does not hold weights of {id}: {problem}.',
    'Give the weights of {id}, as timm or torchvision save them.',
  ],
  weights_unreachable: [
    503,
    'The weights of {id} are not on this machine and {url} could not be reached ({problem}).',
    'Connect and try again, or download that address elsewhere and put the file at {path}. The backbone efficientnet-lite0 needs no download.',
  ],
  hub_endpoint_invalid: [400, 'HF_ENDPOINT is not a web address.', 'Set it to one like https://huggingface.co, or unset it.'],
  weights_changed: [
    409,
    'The weights file {path} is not the one it should be: its sha256 is {found} instead of {expected}.',
    'Delete it (Plinth then downloads it again), or put the right file there.',
  ],
  weights_corrupt: [
    502,
    'What came from {url} is not the expected file: {problem}.',
    'Try again. If it stays so, the source has changed or something between alters it: get the file from elsewhere and put it at {path}.',
  ],

  // ── evaluation ──
  evaluation_empty: [
    400,
    'There is not one labelled picture to evaluate.',
    'Name the class folders like the labels of the model, or read what plinth data import says about the folder.',
  ],
  dataset_kind: [409, '{name} is a {taken}, not a {wanted}.', 'Choose another name.'],
  test_set_not_found: [
    404,
    'There is no test set called {name}.',
    'List test sets with plinth testset list; plinth testset add makes one.',
  ],
  test_set_not_for_training: [
    409,
    '{name} is a test set: a model that has learned from it cannot be tested on it any more.',
    'Train on other pictures. To give it up as a test set: plinth testset remove {name} --yes, then import the folder.',
  ],
  labels_apart: [
    400,
    'There is no picture here of a class that both models know. {a} knows: {labelsA}. {b} knows: {labelsB}.',
    'Compare models of the same classes, on pictures of those.',
  ],
  bad_scores: [
    500,
    'No honest number can be made of {what}: {problem}.',
    'The model or the training that made it is broken: train again with a lower learning rate, or report this.',
  ],
  one_class_left: [
    400,
    'The training side holds pictures of one class only: {label}.',
    'Give every class at least two pictures, or train with another --seed.',
  ],

  // ── pictures ──
  image_empty: [400, 'The picture is empty: there are no bytes in it.', 'Copy or send the file again.'],
  image_unreadable: [
    400,
    'The picture cannot be read: {reason}.',
    'Open it in an image program and save it again as JPEG or PNG, or leave it out.',
  ],
  image_format: [415, 'This is {format}, which is not read here.', 'Convert it to JPEG or PNG first{convert}.'],
  image_too_large: [413, 'The picture is too large: {size}; at most {limit} are read.', 'Scale it down first.'],
  image_timeout: [
    400,
    'The picture took longer than {seconds} s to decode and was given up.',
    'Open it in an image program and save it again as JPEG or PNG, or leave it out.',
  ],

  // ── datasets ──
  source_not_found: [
    404,
    'There is nothing at {path}.',
    'Check the path; it should be a folder with one subfolder of pictures per class, a list of pictures, or a zip of either.',
  ],
  source_not_a_folder: [
    400,
    '{path} is neither a folder, a zip archive nor a list of pictures (.csv, .tsv, .jsonl).',
    'Pass the folder that holds one subfolder per class, a list with path and label, or a zip of either.',
  ],
  source_forbidden: [403, '{path} may not be read.', 'Give yourself the right to read it, or copy it to a folder of your own.'],
  no_pictures: [
    400,
    'There are no pictures in {path}.',
    'Put the pictures into one subfolder per class, for example photos/cat/1.jpg and photos/dog/1.jpg.',
  ],
  no_classes: [
    400,
    '{path} holds {pictures} pictures but no class folders.',
    'Make one subfolder per class and move the pictures there: the name of the folder is the label.',
  ],
  one_class: [
    400,
    'All pictures belong to one class, {label}.',
    'Add a second folder of pictures beside it; with nothing else at hand, a folder called other with pictures of anything else.',
  ],
  class_too_small: [
    400,
    'The class {label} has too few pictures: {different} that differ could be read; at least 3 are needed, one each to train, choose and test on.',
    'Add pictures to it, or take its folder away.',
  ],
  nothing_readable: [400, 'Not one of {pictures} pictures can be read. The first, {path}: {reason}', 'Save them again as JPEG or PNG.'],
  file_unreadable: [400, 'The file cannot be read: {reason}.', 'Check the file and its rights, then import again.'],
  archive_unsafe: [
    400,
    'The archive is not opened: {problem}.',
    'If you trust it, unpack it yourself and pass the folder; else ask for a clean copy.',
  ],
  archive_damaged: [400, 'The archive cannot be read: {problem}.', 'Download or pack it again.'],
  dataset_not_found: [404, 'There is no dataset called {name}.', 'List datasets with plinth data list.'],
  dataset_version_not_found: [
    404,
    'The dataset {name} has no version {version}; the newest is {newest}.',
    'List versions with plinth data list.',
  ],
  dataset_damaged: [
    500,
    'The record of dataset {name} version {version} on disk is not what was saved: {problem}.',
    'Restore the home folder from a backup, or import the pictures again under another name.',
  ],
  list_unreadable: [
    400,
    'The list {list} cannot be read: {problem}.',
    'Save it as CSV in UTF-8 with a line for each picture and the columns path and label (and, where you have them, group and split).',
  ],
  list_columns: [
    400,
    'The list {list} has no column for {missing}. Its first line says: {columns}.',
    'Give it a first line that names the columns: path,label (and, where you have them, group and split).',
  ],
  list_ragged: [
    400,
    'In the list {list} the lines {lines} do not have the {fields} fields of the first line, so labels may have moved.',
    'Put names with commas in them between double quotes, or save the list again from a spreadsheet.',
  ],
  list_split_unknown: [
    400,
    'The list {list} puts pictures on a side called "{word}" (line {lines}), which is not known.',
    'Write train, validation or test in the column split, or leave it empty.',
  ],
  list_contradiction: [
    400,
    'The list {list} says two different things about {path}, in lines {lines}.',
    'Keep the line that is right. A picture has one label, one group and one side.',
  ],
  list_outside: [
    400,
    'The list {list} names files outside of its folder: {path} (line {lines}).',
    'Move the list into a folder above all its pictures and write the paths as they are from there.',
  ],
  list_matches_nothing: [
    404,
    'None of the {pictures} files that the list {list} names is there; the first is {path}.',
    'Write the paths as they are from the folder that the list lies in.',
  ],
  group_pattern_invalid: [
    400,
    'The pattern of --group-by is no regular expression: {problem}.',
    "Try --group-by '^(.*)__', which groups cat/tom__1.jpg and cat/tom__2.jpg as cat/tom.",
  ],
  group_pattern_slow: [
    400,
    'The pattern {pattern} was still searching after {seconds} s.',
    'Write it without repeated parts inside repeated parts, such as (a+)+.',
  ],
  report_in_the_way: [409, '{path} exists and is no report of Plinth.', 'Choose another file for --report, or move that one away.'],
  export_folder_taken: [
    409,
    '{path} holds something that is not part of this export ({file}).',
    'Choose a folder that is new or empty; nothing is written over.',
  ],
  sample_unknown: [404, 'There is no sample called {name}.', 'Choose one of: {names}.'],
  sample_folder_taken: [409, '{path} holds something else already ({file}).', 'Choose a folder that is new or empty.'],
  // ── review ──
  review_label_invalid: [400, '"{label}" cannot be the name of a class: {problem}.', 'Type another name, without slashes and on one line.'],
  review_answer_invalid: [400, 'This answer cannot be taken: {problem}.', 'Reload the page of the review and answer again.'],
  review_request_invalid: [400, 'The review does not understand the request: {problem}.', 'Reload the page of the review.'],
  review_not_found: [404, 'There is nothing at this address of the review.', 'Open the address that the command printed.'],
  review_item_unknown: [404, 'The review has no such question.', 'Reload the page: the review may have been started anew.'],
  review_run_without_dataset: [409, 'The run {run} names no dataset to review.', 'Name a dataset: plinth data list shows them.'],
  review_class_too_small: [
    409,
    'With these verdicts the class “{label}” would have {pictures}; at least 3 different ones are needed.',
    'Keep more of its pictures, give it more, or relabel the last ones too so that it goes away. U on the page takes verdicts back.',
  ],
  review_one_class: [
    409,
    'With these verdicts only {classes} would be left, and a classifier needs two.',
    'Take some of the verdicts back: U on the page of the review.',
  ],
  verdicts_unreadable: [400, 'The verdicts in {path} cannot be read ({problem}).', 'Check the path and the rights.'],
  verdicts_invalid: [
    400,
    'Line {line} of the verdicts cannot be used: {problem}. None of the lines was.',
    'Write one object a line, like { "path": "cat/1.jpg", "verdict": "relabel", "to": ["dog"] } or { "path": "cat/2.jpg", "verdict": "drop" }.',
  ],
  // ── artefact ──
  artefact_missing: [404, 'There is no model file at {path} ({problem}).', 'Check the path, or list models with plinth models list.'],
  artefact_cut_short: [
    422,
    'The model file ends too early, after {bytes} bytes.',
    'Copy it again, or export it again with plinth models export.',
  ],
  artefact_newer: [
    422,
    'The model file has schema {schema}; this Plinth reads up to {known}.',
    'Update Plinth with npm install plinth@latest, or export the model with the older version.',
  ],
  artefact_invalid: [
    422,
    'This is not a model file that Plinth can run: {problem}.',
    'Use a file that plinth train or plinth models export wrote.',
  ],
  artefact_too_large: [413, 'The model file has {bytes} bytes; {limit} are the most.', 'Train with a smaller backbone.'],

  // ── serving ──
  golden_missing: [
    422,
    'The model {model} carries no golden predictions, so nothing shows that it answers as it did when it was made.',
    'Train it again, or use a file that plinth train wrote.',
  ],
  golden_mismatch: [
    422,
    'The model {model} answers differently from when it was made: a probability is off by {difference}, allowed are {allowed}.',
    'Copy or export the model file again. If it stays so, this machine computes differently: please report it with plinth doctor.',
  ],
  port_taken: [409, 'Port {port} on {host} is taken by another program.', 'Choose another with --port, or --port 0 for a free one.'],
  port_refused: [
    403,
    'This user may not listen on port {port} of {host} ({problem}).',
    'Choose a port above 1023 with --port, or --port 0 for a free one.',
  ],
  host_unknown: [
    400,
    'This machine has no address {host} to listen on ({problem}).',
    'Use 127.0.0.1 for this machine alone or 0.0.0.0 for the network.',
  ],
  model_not_started: [500, 'The model {model} could not be started: {problem}.', 'Check memory with plinth doctor and try again.'],
  model_crashed: [
    503,
    'The model stopped while it looked at this picture, twice.',
    'Try another picture. If this one is harmless, please report it.',
  ],
  model_restarting: [503, 'The model stopped and is being started again.', 'Try again in {seconds} s.'],
  prediction_timeout: [
    504,
    'There was no answer within {seconds} s; the model is being started again.',
    'Try a smaller picture, or fewer requests at a time.',
  ],
  overloaded: [503, 'More requests are waiting than this server takes.', 'Try again in {seconds} s, or send fewer at a time.'],
  server_closing: [503, 'The server is stopping.', 'Send the request again when it is back.'],
  route_not_found: [404, 'There is nothing at this address.', 'Send pictures with POST /predict; GET / is a page to try it.'],
  method_not_allowed: [405, 'This address does not take {method}.', 'Use {allowed}.'],
  host_refused: [
    403,
    'This server answers only to its own name, and the request names another.',
    'Use http://localhost or http://127.0.0.1 with the port.',
  ],
  origin_refused: [
    403,
    'A page of another site may not use this server.',
    'Open the page of this server itself, or call it from a program.',
  ],
  token_invalid: [
    400,
    'The token given to this server is too short or has characters that cannot be sent.',
    'Use 16 or more letters, digits and any of . _ ~ + / = -; or leave $PLINTH_TOKEN out and one is made.',
  ],
  token_required: [
    401,
    'This server wants a token.',
    'Send the header Authorization: Bearer TOKEN; the token was printed when the server started.',
  ],
  body_missing: [
    400,
    'The request has no picture in it.',
    'Send one with curl --data-binary @picture.jpg URL or curl -F image=@picture.jpg URL.',
  ],
  body_too_large: [413, 'The request is larger than {limit} bytes.', 'Send a smaller picture; a few megapixels are plenty.'],
  body_encoded: [
    415,
    'The request is compressed ({encoding}), which is not taken here.',
    'Send the picture as it is, without Content-Encoding.',
  ],
  multipart_invalid: [400, 'The form cannot be read: {problem}.', 'Send one picture with curl -F image=@picture.jpg URL.'],
  request_invalid: [400, 'The request is not HTTP that this server understands.', 'Send pictures with curl or any HTTP library.'],
  request_too_slow: [408, 'The request did not arrive in time.', 'Send it again, or send a smaller picture.'],
  headers_too_large: [431, 'The headers of the request are too large.', 'Send fewer or shorter headers.'],

  // ── home ──
  disk_full: [
    507,
    'The disk is full: {path} could not be written. What was there before is unharmed.',
    'Free some space (plinth gc shows what Plinth can spare) and run the same command again.',
  ],
  read_only: [
    403,
    '{path} is on a disk that cannot be written to.',
    'Choose a place on a writable disk; PLINTH_HOME says where the home is.',
  ],
  not_permitted: [
    403,
    'You may not read or write {path}.',
    'Give yourself the right to, or choose a folder of your own; PLINTH_HOME says where the home is.',
  ],
  path_in_the_way: [409, 'There is something at {path} already.', 'Choose another path, or move what is there.'],
  storage: [500, '{path} could not be read or written: {problem}.', 'Check the path and the disk, then run the same command again.'],
  blob_missing: [404, 'The stored file {digest} is not there.', 'Import the pictures again; the same folder gives the same version.'],
  blob_damaged: [
    500,
    'The stored file {digest} is not what was put there. It was moved aside.',
    'Import the pictures again: the same folder gives the same version, and mends it.',
  ],
  home_busy: [
    503,
    'Another program kept the database {path} for more than {seconds} s.',
    'Try again; if it stays so, look for a Plinth that hangs, or for a backup program that holds the file.',
  ],
  home_damaged: [
    500,
    '{path} does not hold what Plinth wrote there.',
    'Restore the home folder from a backup, or set PLINTH_HOME to a new one.',
  ],
  home_too_new: [
    409,
    '{path} was written by a newer Plinth ({found}; this one knows {known}).',
    'Update Plinth, or set PLINTH_HOME to another folder.',
  ],
  name_invalid: [
    400,
    '"{name}" cannot be the name of a {kind}.',
    'Use letters, digits, dots, dashes and underscores, at most 100, starting with a letter or digit.',
  ],
  version_invalid: [400, '"{reference}" does not name a version.', 'Write name@3, with a whole number from 1.'],

  // ── runs and models ──
  run_not_found: [404, 'No run has the id {run}.', 'List runs with plinth runs list.'],
  metric_invalid: [
    400,
    'This cannot be logged as a metric: {problem}.',
    'Use names of 1 to 250 characters without line breaks, whole steps and numbers.',
  ],
  run_ambiguous: [400, '{count} runs begin with {run}.', 'Give more letters of the id; plinth runs list shows them.'],
  run_busy: [409, 'Run {run} is at work in process {pid}.', 'Wait for it, or stop it with Ctrl-C in its terminal.'],
  model_not_found: [404, 'There is no model {model}.', 'List models with plinth models list.'],
  model_alias_not_found: [404, 'The model {name} has no alias {alias}.', 'See plinth models show {name}; plinth models promote sets one.'],
  model_name_spent: [
    409,
    'The name {name} belonged to a model that was deleted, and its version numbers are not given twice.',
    'Choose another name.',
  ],
  model_exists: [409, 'There is a model called {name} already.', 'Choose another name.'],

  // ── training and evaluation ──
  training_died: [
    500,
    'The training process ended without a word ({how}). What it had reached is on disk.',
    'Go on with: plinth train --resume {run}',
  ],
  training_done: [
    409,
    'Run {run} has finished; there is nothing to go on with.',
    'Train again with plinth train --from {model}, or serve it with plinth serve {model}.',
  ],
  classes_unknown: [
    400,
    'The pictures have classes that the model does not know: {strangers}. It knows: {labels}.',
    "Rename the folders to the model's labels, or leave those classes out.",
  ],
  predictions_foreign: [409, '{path} exists and is not a predictions file of ours.', 'Choose another file for --out.'],

  // ── control plane ──
  user_not_found: [404, 'There is no user {user} here.', 'List users with plinth users list.'],
  owner_untouchable: [
    403,
    '{user} owns this installation.',
    'Only the owner makes tokens for the owner; roles and closing an account are for everybody else.',
  ],
  project_exists: [409, 'There is a project {project} already.', 'Use it, or choose another name.'],
  token_not_found: [404, 'There is no token {id} of yours here.', 'List tokens with plinth tokens list.'],
  project_not_found: [404, 'There is no project {project} here that you have a role in.', 'List projects with plinth projects list.'],
  home_only: [
    409,
    'The command plinth {command} works on the home of this machine only, and PLINTH_URL names a server.',
    'Run it where that server runs, or unset PLINTH_URL.',
  ],
  server_address: [
    400,
    '{url} is no address of a Plinth server: {problem}.',
    'Give scheme, host and port, as in https://plinth.example.org or http://127.0.0.1:6420.',
  ],
  server_not_safe: [
    400,
    'Over {url} the token would go through the network where others can read it.',
    'Use https://, a tunnel to this machine (ssh -L 6420:127.0.0.1:6420 HOST), or --plain-http if that network is yours.',
  ],
  server_version: [
    409,
    'At {url} answers Plinth {theirs}, here is {ours}, and they do not understand each other in this.',
    'Bring both to the same version.',
  ],
  login_needed: [401, 'There is no token for {url} on this machine.', 'Say plinth login {url}, or set PLINTH_TOKEN.'],
  login_empty: [400, 'There is no token in {source}.', 'Give the line that plinth tokens create printed: plinth_….'],
  credentials_open: [403, 'Others on this machine can read {path}, which holds tokens.', 'Close it to them: chmod 600 {path}'],
  credentials_unreadable: [500, 'The file {path} with the tokens of servers cannot be read.', 'Delete it and say plinth login URL again.'],
  too_many_requests: [
    429,
    'There are more requests than this server takes from one client.',
    'Wait {seconds} s; send many points in one request.',
  ],
  too_many_attempts: [429, 'Too many wrong tokens came from this address.', 'Wait {seconds} s, and check the token.'],
  scope_too_narrow: [
    403,
    'This token has the scope {scope}, which does not reach so far.',
    'Use a token of the scope all: plinth tokens create NAME makes one.',
  ],
  scope_too_wide: [403, 'A token that may only {scope} cannot make one that may do more.', 'Use a token with the scope all.'],
  registered_model_exists: [400, 'Registered Model (name={name}) already exists.', 'Use it, or choose another name.'],
  registered_model_not_found: [404, 'Registered Model with name={name} not found.', 'List models with plinth models list.'],
  registered_version_not_found: [404, 'Model Version (name={name}, version={version}) not found.', 'List models with plinth models list.'],
  registered_alias_not_found: [400, 'Registered model alias {alias} not found.', 'Set it with plinth models promote NAME@VERSION ALIAS.'],
  registered_name_invalid: [400, 'A registered model cannot be called {name}.', 'Use 1 to 250 characters without / and :.'],
  alias_invalid: [400, 'An alias cannot be called {alias}.', 'Use letters, digits, - and _; not latest, and nothing like v3.'],
  promotion_refused: [
    400,
    '{model} does not get {place}: it is worse than {current}, which has it now, beyond the interval: {scores}.',
    'Keep {current}. To insist, say why: plinth models promote NAME@VERSION ALIAS --force --reason "…".',
  ],
  promotion_without_reason: [400, 'A version that is forced needs a reason, which is kept.', 'Add --reason "why this one".'],
  model_in_use: [
    409,
    '{model} is in use: {users}.',
    'Move the alias (plinth models promote), take it away (plinth models unalias), or stop what serves it.',
  ],
  stage_invalid: [400, 'Invalid Model Version stage: {stage}.', 'There are None, Staging, Production and Archived.'],
  logged_model_not_found: [404, 'There is no logged model {model}.', 'Search logged models of the experiment.'],
  object_name: [400, 'A file cannot be called {name} here.', 'Use names without .., backslashes, control characters and empty parts.'],
  object_in_the_way: [
    409,
    'There is a file where {name} needs a folder, or the other way round.',
    'Choose another name, or delete what is there first.',
  ],
  artifact_path: [400, 'Invalid path {path}.', 'Use a relative path with forward slashes, without .. and #.'],
  artifact_not_found: [404, 'There is no artifact {path}.', 'List what is there first.'],
  experiment_name_unknown: [404, 'There is no experiment called {name}.', 'List experiments with GET /api/experiments.'],
  search_invalid: [
    400,
    'The search cannot be understood: {problem}.',
    "Write conditions like metrics.loss < 0.5 and params.net = 'lite', joined by AND.",
  ],
  page_invalid: [400, 'This page token does not belong to this search.', 'Start again without a page token.'],
  mlflow_parameter: [400, '{problem}', 'See the API docs for more information about request parameters.'],
  import_source_not_found: [
    404,
    'There is nothing at {source}.',
    'Give the address of an MLflow server, its SQLite file or its folder mlruns.',
  ],
  import_source_unknown: [
    400,
    '{source} is nothing that can be taken over from: {problem}.',
    'Give the address of an MLflow server (2.0 or newer), its SQLite file or its folder mlruns. A server with another database is asked by its address.',
  ],
  import_source_damaged: [
    400,
    'What the source holds cannot be believed: {problem}.',
    'Check it with its own MLflow (mlflow db upgrade), or ask the running server by its address. What was taken over until here stays.',
  ],
  import_refused: [
    502,
    '{host} answered {status} to {path}: {told}',
    'If it asks who you are, set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.',
  ],
  import_unreachable: [
    502,
    '{host} does not answer: {problem}.',
    'Start it or check the address; the same command goes on where it stopped.',
  ],
  import_incomplete: [409, 'Not all of it is here: {missing}.', 'Read the notes above; the same command tries again what is missing.'],
  mlflow_route_not_found: [
    404,
    'Of the API of MLflow, {method} {path} is not answered here{because}.',
    'Look at docs/mlflow.md for what is answered; experiments, runs, models and files go on without it.',
  ],
  mlflow_not_kept: [501, '{problem}', 'Look at docs/mlflow.md for what is answered and what is not.'],
  experiment_deleted: [
    400,
    'The experiment {experiment} must be in the active state, but it is deleted.',
    'Restore it first, or use another one.',
  ],
  run_name_ambiguous: [400, 'The run is called {name} and, by its tag mlflow.runName, {tag}.', 'Give it one name.'],
  tag_not_found: [404, 'There is no tag {key} on {of}.', 'Look at the tags that are there.'],
  tracked_run_not_found: [404, 'There is no run {run}.', 'List runs with plinth runs list, or look into another project.'],
  tracked_run_deleted: [400, 'The run {run} must be in the active state, but it is deleted.', 'Restore it first.'],
  param_changed: [
    400,
    'Changing param values is not allowed. The param {key} of run {run} is {old} and cannot become {value}.',
    'Log it under another name, or start another run.',
  ],
  host_not_safe: [
    400,
    'On {host} everybody in the network could read what is sent.',
    'Put a proxy with TLS in front and say --behind-proxy, or give --tls-certificate and --tls-key.',
  ],
  experiment_exists: [
    400,
    'Experiment(name={name}) already exists.',
    'Use it, or choose another name; a deleted experiment keeps its name until it is restored.',
  ],
  experiment_not_found: [404, 'There is no experiment {experiment}.', 'List experiments with GET /api/experiments.'],
  api_route_not_found: [404, 'There is nothing at {path}.', 'The calls are listed at /api/openapi.json.'],
  api_request_invalid: [400, 'The request does not fit: {problem}.', 'The calls and their fields are listed at /api/openapi.json.'],
  api_body_too_large: [
    413,
    'The request is larger than {limit}.',
    'Send it in parts; files go to the artifact routes, which take any size.',
  ],
  api_content_type: [
    415,
    'The body of the request is not of a kind that is taken here.',
    'Send JSON with the header Content-Type: application/json.',
  ],
  token_wrong: [
    401,
    'This token is not known here, or has expired or been revoked.',
    'Make one with plinth tokens create, or read the owner’s from the file token in Plinth’s home.',
  ],
  forbidden: [
    403,
    '{user} has no right to do this; it needs the role {right}.',
    'Ask an admin of the project: plinth users list shows who that is.',
  ],
  // ── operating ──
  database_unreachable: [
    503,
    'The database {database} does not answer: {problem}.',
    'See that PostgreSQL runs there and lets this user in (psql with the same address says more), then try again.',
  ],
  database_busy: [503, 'The database {database} is busy with others.', 'Try again.'],
  database_slow: [400, 'The database gave this up after {seconds} s.', 'Ask for less at a time, or with a narrower filter.'],
  database_address: [
    400,
    'This cannot be the address of a database: {problem}.',
    'Write postgres://user@host/database, with the password in the file that --database-file names, or all of it in PLINTH_DATABASE.',
  ],
  database_other: [
    409,
    'This home keeps its records in plinth.db already; {database} would hide them.',
    'Set PLINTH_HOME to a new folder, or take the records along: plinth backup, then plinth restore --database-file into a new home.',
  ],
  dump_damaged: [400, 'The copy of the database cannot be read: {problem}.', 'Restore another backup.'],
  database_not_empty: [409, '{database} holds something already.', 'Restore into a new database.'],
  backup_place: [
    409,
    'A backup cannot be put at {path}: {problem}.',
    'Name a folder that is new, empty or holds backups, or a new file that ends in .tar.',
  ],
  backup_missing: [404, 'There is no backup at {path}.', 'Name the folder or the .tar that plinth backup wrote.'],
  backup_damaged: [
    400,
    'This backup cannot be used: {problem}.',
    'Take another one. Nothing was restored; plinth restore --verify says which ones are sound.',
  ],
  restore_place: [409, 'There is something in {path} already.', 'Set PLINTH_HOME to a new folder, or move that one away first.'],
  tls_unusable: [
    400,
    'The certificate {certificate} and the key {key} cannot be used: {problem}.',
    'Give both as PEM files that belong together; the certificate first, then those between it and the root.',
  ],
  secret_open: [403, 'Others on this machine can read {path}, which holds a password.', 'Close it to them: chmod 600 {path}'],
  service_in_the_way: [409, 'There is another unit at {path}.', 'Look at it; plinth up --install-service --force replaces it.'],
  log_file: [
    400,
    'The log cannot be written to {path} ({problem}).',
    'Choose another file with --log-file, or leave it out: then it goes to stderr.',
  ],
  service_words: [400, '{word} cannot stand in a systemd unit.', 'Use paths and addresses without line breaks and control characters.'],
  home_held: [
    409,
    'Process {pid} runs plinth up on this home already{where}.',
    'Use that one, or stop it first (Ctrl-C in its terminal, or kill {pid}).',
  ],
  server_unreachable: [503, 'No Plinth server answers at {url}.', 'Start it with plinth up, or check the address with plinth login URL.'],
  server_certificate: [
    502,
    'The certificate of {url} is not trusted on this machine: {problem}.',
    'If it was made by an authority of your own, name that: NODE_EXTRA_CA_CERTS=/path/to/authority.crt plinth ...',
  ],
  server_answer: [
    502,
    'What answers at {url} is not a Plinth server as this version knows it: {problem}.',
    'Check the address, and that both sides have the same version of Plinth.',
  ],

  // ── hardware ──
  hardware_file: [
    400,
    'The file that describes this machine is wrong: {problem}.',
    'Correct hardware.yaml in the home (or the file that PLINTH_HARDWARE names); docs/hardware.md shows one.',
  ],
  bandwidth_refused: [
    503,
    'The bandwidth to {address} could not be measured: {problem}.',
    'Start plinth doctor --listen ADDRESS on the other machine, and use the address, port and word that it prints; a firewall has to let them through.',
  ],
  advice_incomplete: [400, 'There is too little to go by: {problem}.', '{remedy}'],
  price_table: [400, 'The price table is wrong: {problem}.', 'See docs/advise.md for its form.'],

  // ── spool ──
  spool_line: [400, 'A line of the log cannot be read; it is put aside.', 'Look into the file .refused beside the log.'],
  spool_no_server: [
    503,
    'No server keeps this home, so there is nobody to send it to.',
    'Start plinth up, which takes it up by itself, or name a server with --url.',
  ],
  spool_other_token: [
    403,
    'This was logged with another token, whose public id is {token}, and would land in another project.',
    'Set PLINTH_TOKEN to that token; plinth up on the home of that token takes it up without.',
  ],
  spool_not_found: [404, 'Nothing is waiting to be sent for a run {run}.', 'List what is waiting with plinth spool list.'],
  spool_part_missing: [
    404,
    'The content of the file {path} is not beside the log any more.',
    'Log the file again, from where it was made.',
  ],
  spool_files_elsewhere: [
    400,
    'The file {path} belongs to a run whose files are not kept by this server.',
    'Copy it from the folder .files beside the log to where the experiment keeps its files.',
  ],
  jobs_of_the_owner: [
    403,
    'Only the owner may run jobs on this server, and {user} is not: a job can do and read whatever the user can that the server runs as.',
    'Ask the owner, who can let editors run them by starting it with plinth up --jobs-by editors.',
  ],

  // ── sweeps ──
  sweep_search: [
    400,
    'This is no search: {search}: {problem}.',
    'Write lr=log:1e-4..1e-1, dropout=0..0.5, layers=int:1..4 or optimiser=sgd,adam.',
  ],
  sweep_not_found: [404, 'There is no sweep {name}.', 'See plinth jobs list --all for the groups there are.'],

  // ── job files ──
  job_file_malformed: [400, '{file} is no sound job file: {problem}.', 'See docs/jobs.md for an example to start from.'],
  job_file_field: [400, 'The job file says something under {field} that cannot be read: {problem}.', 'See docs/jobs.md for each key.'],
  job_file_unsupported: [400, '{file} needs what is not done here: {fields}.', 'Take it out, or change it as said.'],
  job_envs_missing: [400, 'The job needs values for: {names}.', 'Give each of them, such as --envs {first}=VALUE.'],
  job_secret_missing: [
    400,
    'The job needs the secret {name}, and nothing is set under that name.',
    'Set {name} in your environment, then run it with --secret {name}.',
  ],
  job_target_not_found: [404, 'There is no file {target}.', 'Check the path; a command of words stands behind --.'],
  server_not_started: [500, 'A server did not start in the background.', 'See {log} in the home, or start it yourself with plinth up.'],
  job_environment_file: [
    400,
    'The environment cannot be made from {file}: {problem}.',
    'Give one of requirements.txt, pyproject.toml, uv.lock, environment.yml with --env.',
  ],

  // ── jobs ──
  job_not_found: [404, 'There is no job {job}.', 'List jobs with plinth jobs list --all.'],
  job_attempt_not_found: [404, 'Job {job} has no attempt {attempt}.', 'See its attempts with plinth jobs show {job}.'],
  job_spec_invalid: [400, 'The job cannot be taken: {problem}.', 'See docs/jobs.md for what a job may say.'],
  job_key_taken: [409, 'Job {job} was submitted under this key, and is another one.', 'Make a new key for each job.'],
  job_active: [409, 'Job {job} is {state}.', 'Stop it first (plinth jobs stop {job}), or wait until it has ended.'],
  job_secrets_gone: [
    409,
    'Job {job} needs secrets, whose values were forgotten when it ended.',
    'Submit it again, with plinth run and --secret.',
  ],
  job_dependency_unknown: [
    404,
    'The job is to wait for {job}, and there is no such job.',
    'Submit that one first, and name it by its number, or by its name within the same group.',
  ],
  job_device_missing: [
    409,
    'No machine here has {wanted}. There is: {there}.',
    'Ask for what is there, or see with plinth doctor why an accelerator is missing.',
  ],
  job_too_large: [409, 'No machine here can hold {wanted}. There is: {there}.', 'Ask for less, or for more nodes of a smaller size.'],
  job_platform: [501, 'Jobs run on Linux; this machine runs {platform}.', 'Use a server on Linux: set PLINTH_URL, or plinth login URL.'],
  job_not_started: [
    500,
    'The supervisor of job {job} could not be started: {problem}.',
    'See whether the disk is full, then plinth jobs retry {job}.',
  ],
  job_over: [
    401,
    'This token was for one attempt of a job, which is over.',
    'Nothing that is sent with it counts any more: the process can end. A newer attempt has a token of its own.',
  ],
  job_run_only: [
    403,
    'The token of a job is for its own run, and for runs beneath it.',
    'Ask with a token of a person, or make a run of the job’s own.',
  ],
  job_engine_unknown: [400, 'There is no engine called {engine} here.', 'Choose one of: {known}.'],
  // ── environments of jobs ──
  interpreter_missing: [
    400,
    'The job asks for Python {wanted}; {here}.',
    'Ask for one that is here (--python, or python in the job file), or install the one that is wanted: pyenv install, uv python install, or the packages of the system.',
  ],
  interpreter_version_invalid: [400, '"{wanted}" is no version of Python.', 'Write it as 3.11, 3.11.7 or >=3.10,<3.13.'],
  environment_file_missing: [404, 'There is no file {file} in the folder of the job.', 'Check its path; it is relative to workdir.'],
  environment_file_invalid: [400, '{where}: {problem}.', '{remedy}'],
  environment_unsatisfiable: [
    400,
    'The packages of {file} cannot be installed. {says}',
    'Change what {file} asks for. The log of the job has all that the installer said.',
  ],
  environment_tool_missing: [400, '{file} needs {tool}, which is not here.', '{remedy}'],
  environment_tool_failed: [500, '{tool} failed. {says}', 'The log of the job has all that it said.'],
  notebook_invalid: [
    400,
    '{file} is no notebook that can be run: {problem}.',
    'Open and save it in Jupyter, or export it as a .py script.',
  ],
} as const satisfies Record<string, readonly [status: number, message: string, next: string]>

export type FailureCode = keyof typeof failures
export type FailureDetails = Readonly<Record<string, string | number>>

/** The `{names}` in a text; what stands between braces with spaces is meant as it is. */
type Placeholder<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? (Name extends `${string} ${string}` ? never : Name) | Placeholder<Rest>
  : never
/** What the two texts of a code want to know: forgetting one does not compile, so that nobody reads "{step}". */
type Details<Code extends FailureCode> = Placeholder<(typeof failures)[Code][1 | 2]>

/** A failure as one process of ours tells it to another. */
export interface SentFailure {
  code: FailureCode
  details: FailureDetails
}

export class Failure<Code extends FailureCode = FailureCode> extends Error {
  readonly code: FailureCode
  readonly status: number
  /** What the reader can do now: a command, a setting, a change in the data. */
  readonly next: string
  readonly details: FailureDetails

  constructor(
    code: Code,
    ...[details = {}, options]: [Details<Code>] extends [never]
      ? [details?: FailureDetails, options?: ErrorOptions]
      : [details: FailureDetails & Readonly<Record<Details<Code>, string | number>>, options?: ErrorOptions]
  ) {
    const [status, message, next] = failures[code]
    super(fill(message, details), options)
    this.name = 'Failure'
    this.code = code
    this.status = status
    this.next = fill(next, details)
    this.details = details
  }

  /** The failure that a server told, in its own words: it may know codes that this version does not. */
  static told({ code, message, next }: { code: string; message: string; next: string }, status: number): Failure {
    const failure = Object.assign(Object.create(Failure.prototype) as Failure, new Failure('internal', { problem: message }))
    return Object.assign(failure, { code: code as FailureCode, message, next, status, details: {} })
  }

  /** The failure that another process had: its details were complete when it was made there. */
  static received({ code, details }: SentFailure): Failure {
    return new Failure(code, details as FailureDetails & Record<Details<FailureCode>, string | number>)
  }

  toJSON() {
    return { code: this.code, message: this.message, next: this.next }
  }
}

const ofTheDisk: ReadonlySet<string> = new Set<FailureCode>([
  ...(['disk_full', 'read_only', 'not_permitted', 'path_in_the_way', 'storage'] as const),
  ...(['home_busy', 'home_damaged', 'home_too_new'] as const),
])

/** As it is told to somebody on another machine: of a path of this one, the last part. */
export function forOthers(failure: Failure): Failure {
  const { path } = failure.details
  if (!ofTheDisk.has(failure.code) || typeof path !== 'string' || !/[/\\]/.test(path)) return failure
  const details = { ...failure.details, path: path.split(/[/\\]/).at(-1)! }
  return Failure.received({ code: failure.code, details })
}

const fill = (text: string, details: FailureDetails) => text.replace(/\{(\w+)\}/g, (whole, key: string) => String(details[key] ?? whole))
