#include "cli/commands/edit_each_command.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cli/commands/batch_work.hpp"
#include "cli/commands/batch_writer.hpp"
#include "cli/commands/edit_session.hpp"
#include "cli/commands/edit_task.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/results_file.hpp"
#include "cli/session.hpp"
#include "cli/window_note.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/report/edit_batch_json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/json_line.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"

namespace rometrace::cli {
namespace {

using LayerSets = std::vector<std::vector<std::int64_t>>;

// The layers of each edit of a fact: of MEMIT all at once, else one after the other.
LayerSets layer_sets(const EditOptions& options, const EditSession& session) {
  if (options.method == EditMethod::kMemit) return {session.layers_for(nullptr)};
  LayerSets sets;
  if (options.all_layers) {
    for (std::int64_t layer = 0; layer < session.model().config().layers; ++layer) sets.push_back({layer});
  } else {
    for (const auto layer : session.layers_for(nullptr)) sets.push_back({layer});
  }
  return sets;
}

// Where clean values bring old objects back: the curve that a sweep over layers is held against.
class Tracer {
 public:
  Tracer(const EditOptions& options, const EditSession& session, const Work& work, std::stop_token stop)
      : options_(options), session_(session), stop_(std::move(stop)), trace_(trace_options(options.run)) {
    const auto& model = session.model();
    trace_.kinds = {Kind::kState, Kind::kMlp};
    trace_.positions.which = PositionRule::Which::kSubjectLast;
    trace_.window = advised_window(model.config().layers);
    std::string where;
    for (const auto& file : options.facts) where += (where.empty() ? "" : ", ") + file;
    const auto subjects = subjects_of(work.facts);
    if (!subjects.empty()) {  // else no fact is traced
      trace_.corruption =
          read_corruption(options.run, model, session.tokenizer(), SubjectList{subjects, where}).corruption;
    }
  }

  const TraceOptions& options() const { return trace_; }

  /// Of the old object, whatever the model says. Numbers that do not exist are NaN. Throws EndOfWork.
  TracingCurve curve(const EditTask& task) const {
    const auto& model = session_.model();
    const auto& tokenizer = session_.tokenizer();
    auto prompt = trace_prompt_of(task, tokenizer);
    prompt.target = true_ids_of(task, tokenizer);
    TracingCurve curve;
    const std::vector<double> missing(static_cast<std::size_t>(model.config().layers),
                                      std::numeric_limits<double>::quiet_NaN());
    curve.mlp = curve.state = missing;
    try {
      const auto clean = run_clean(model, prompt, trace_, stop_);
      RunControl control;
      control.stop = stop_;
      control.memory = memory_for_rows(options_.run, model, least_memory(model, prompt, trace_));
      const auto trace = trace_sweep(model, prompt, trace_, clean, control).trace;
      curve.high_score = trace.high_score;
      curve.low_score = trace.low_score;
      for (const auto& grid : trace.grids) (grid.kind == Kind::kMlp ? curve.mlp : curve.state) = grid.scores;
    } catch (const EndOfWork&) {
      throw;
    } catch (const Error& error) {
      spdlog::debug("no trace of {}: {}", task.prompt, error.what());
    }
    return curve;
  }

 private:
  const EditOptions& options_;
  const EditSession& session_;
  std::stop_token stop_;
  TraceOptions trace_;
};

// Edits facts, each from the same weights.
class Editor {
 public:
  Editor(const EditOptions& options, EditSession& session, LayerSets sets, const Work& work,
         const std::stop_token& stop)
      : session_(session), sets_(std::move(sets)) {
    if (sets_.size() > 1) tracer_.emplace(options, session, work, stop);
    model_ = model_record(session.located().name, session.model(), session.stack());
    model_.weights_sha256 = session.weights_sha256();
    run_ = run_record(options.run, session.model());
    run_.threads = at::get_num_threads();
  }

  EditBatchRecord header(const EditOptions& options, const Work& work) const {
    EditBatchRecord record;
    record.settings = session_.record(MadeEdit{}, sets_.front());
    record.settings.model = model_;
    record.layers = sets_;
    record.force = options.force;
    record.run = run_;
    if (tracer_) record.tracing = tracer_->options();
    record.sources = work.facts.sources;
    record.selection = options.selection;
    record.selected = work.selected;
    record.shard = options.shard;
    return record;
  }

  /// Never throws for what is wrong with the fact: the record then says so. Throws EndOfWork.
  EditedFactRecord edit(const BatchItem& item, const EditProgress& progress) {
    const Stopwatch watch;
    EditedFactRecord record;
    record.fact = reference_of(item);
    record.model = model_;
    record.run = run_;
    if (const auto* bad = std::get_if<BadRecord>(item.record)) {
      set(record, "failed", "record", bad->message);
    } else {
      const auto& fact = std::get<Fact>(*item.record);
      record.new_object = fact.new_object;
      try {
        edit_fact(fact, record, progress);
      } catch (const EndOfWork&) {
        throw;
      } catch (const EditRefused& refused) {
        set(record, "skipped", refused.cause(), fact.where + ": " + refused.what());
      } catch (const Error& error) {
        set(record, "failed", "edit", fact.where + ": " + error.what());
      }
    }
    record.run.seconds = watch.seconds();
    return record;
  }

 private:
  static void set(EditedFactRecord& record, const char* status, const char* cause, std::string reason) {
    record.status = status;
    record.cause = cause;
    record.reason = std::move(reason);
  }

  void edit_fact(const Fact& fact, EditedFactRecord& record, const EditProgress& progress) {
    if (!fact.new_object) throw EditRefused("no_new_object", "the record has no new object (object_new, target_new)");
    if (!fact.object) throw EditRefused("no_object", "the record has no old object, which the new one is held against");
    const auto task = task_of(fact);
    record.fact.object_tokens =
        static_cast<std::int64_t>(encode_answer(session_.tokenizer(), spaced_object(task.true_object)).size());
    session_.refuse_if_said(task);
    std::optional<EditRefused> refused;
    for (std::size_t i = 0; i < sets_.size(); ++i) {
      EditAttempt attempt;
      attempt.layers = sets_[i];
      const auto part = [&](std::int64_t done, std::int64_t total) {
        const auto all = static_cast<std::int64_t>(sets_.size()) * total;
        progress(static_cast<std::int64_t>(i) * total + done, all);
      };
      try {
        auto made = session_.edit(std::span(&task, 1), sets_[i], /*greedy_tokens=*/0,
                                  progress ? EditProgress(part) : EditProgress());
        attempt.fact = std::move(made.facts.front());
        attempt.matrices = std::move(made.matrices);
      } catch (const EditRefused& here) {
        attempt.cause = here.cause();
        attempt.reason = here.what();
        if (!refused) refused = here;
      }
      record.edits.push_back(std::move(attempt));
    }
    const bool made = std::any_of(record.edits.begin(), record.edits.end(),
                                  [](const auto& attempt) { return attempt.fact.has_value(); });
    if (!made) {
      record.edits.clear();
      throw EditRefused(*refused);
    }
    if (tracer_) record.tracing = tracer_->curve(task);
    record.status = "edited";
  }

  EditSession& session_;
  LayerSets sets_;
  std::optional<Tracer> tracer_;
  ModelRecord model_;
  RunRecord run_;
};

FactsOptions facts_options(const EditOptions& options) {
  FactsOptions facts;
  facts.files = options.facts;
  facts.selection = options.selection;
  facts.shard = options.shard;
  facts.shard_source = options.shard_source;
  return facts;
}

Status status_of(const EditedFactRecord& record) {
  if (record.status == "edited") return Status::kTraced;
  return record.status == "skipped" ? Status::kSkipped : Status::kFailed;
}

// A device's model, with what edits of it need.
struct Place {
  Place(const EditOptions& asked, c10::Device device, const std::stop_token& stop) : options(asked) {
    options.run.device = device.str();
    session = std::make_unique<EditSession>(options, stop);
  }

  void prepare(const Work& work, const std::stop_token& stop) {
    const auto sets = layer_sets(options, *session);
    std::set<std::int64_t> layers;
    for (const auto& set : sets) layers.insert(set.begin(), set.end());
    session->prepare(std::vector<std::int64_t>(layers.begin(), layers.end()));
    editor.emplace(options, *session, sets, work, stop);
  }

  EditOptions options;
  std::unique_ptr<EditSession> session;
  std::optional<Editor> editor;
};

// One for each device. The first one prepares alone: what it finds out of the weights is then in the user's cache, and
// what is to be said has been said.
std::vector<std::unique_ptr<Place>> prepared_places(const std::vector<c10::Device>& devices, const EditOptions& options,
                                                    const Work& work, const std::stop_token& stop) {
  std::vector<std::unique_ptr<Place>> places(devices.size());
  places.front() = std::make_unique<Place>(options, devices.front(), stop);
  const auto& first = *places.front()->session;
  choose_threads(options.run, first.model(), typical_length(work, first.tokenizer()));
  places.front()->prepare(work, stop);
  const auto level = spdlog::get_level();
  if (devices.size() > 1) spdlog::set_level(std::max(level, spdlog::level::err));
  Workers(static_cast<int>(devices.size())).share(std::ssize(devices) - 1, [&](std::int64_t i) {
    const auto place = static_cast<std::size_t>(i) + 1;
    places[place] = std::make_unique<Place>(options, devices[place], stop);
    places[place]->prepare(work, stop);
  });
  spdlog::set_level(level);
  return places;
}

// Edits what the file lacks, each fact on whichever device is free, and writes the lines in order. Throws EndOfWork.
void edit_all(std::vector<std::unique_ptr<Place>>& places, const Work& work, BatchWriter& writer,
              const std::stop_token& stop) {
  std::vector<const BatchItem*> left;
  for (const auto& item : work.items) {
    if (!writer.has(item)) left.push_back(&item);
  }
  const auto& tokenizer = places.front()->session->tokenizer();
  const auto progress = places.size() == 1 ? writer.progress().callback() : EditProgress();
  std::mutex telling;
  std::map<std::size_t, EditedFactRecord> done;  // that wait for those before them
  std::size_t told = 0;
  Workers workers(static_cast<int>(places.size()));
  workers.share(std::ssize(left), [&](std::int64_t i) {
    if (stop.stop_requested()) throw Interrupted();
    const at::AutoGradMode gradients(true);  // which workers do without
    const auto place = static_cast<std::size_t>(i);
    auto& mine = *places.at(static_cast<std::size_t>(Workers::number()));
    const CurrentDevice current(mine.session->model().device());
    auto record = mine.editor->edit(*left[place], progress);
    const std::scoped_lock lock(telling);
    done.emplace(place, std::move(record));
    for (auto next = done.find(told); next != done.end(); next = done.find(++told)) {
      const auto& ready = next->second;
      writer.write(*left[told], status_of(ready), ready.cause, ready.reason, to_line(to_json(ready, tokenizer)));
      done.erase(next);
    }
  });
}

}  // namespace

int run_edit_each(const EditOptions& options, const std::stop_token& stop) {
  return run_edit_each_on(devices_of(options.run), options, stop);
}

int run_edit_each_on(const std::vector<c10::Device>& devices, const EditOptions& options, const std::stop_token& stop) {
  const auto path = batch_output_path(options.run, options.shard);
  ResultsFile file(path);
  if (!file.locked()) {
    spdlog::warn("{}: the file system knows no locks; see to it that no other process writes this file", *path);
  }
  const auto work = choose_work(read_edit_facts(facts_files(options.facts)), facts_options(options));
  auto places = prepared_places(devices, options, work, stop);
  const auto done = file.begin(to_json(places.front()->editor->header(options, work)), stop);
  const auto total = static_cast<std::int64_t>(work.items.size());
  say_what_is_there(path, done, total);

  BatchWriter writer(file, done, total, "edited", options.run.quiet, stop);
  bool complete = false;
  try {
    edit_all(places, work, writer, stop);
    complete = true;
  } catch (const Interrupted&) {  // the facts at hand are left to the next run
  }
  writer.progress().clear();
  file.close();
  if (!complete) {
    say_interrupted(writer, path, total);
    return kInterrupted;
  }
  say_counts(writer, writer.progress().seconds());
  return writer.counts().failed > 0 ? kSomeNotTraced : kDone;
}

}  // namespace rometrace::cli
