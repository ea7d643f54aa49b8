#include "cli/commands/edit_command.hpp"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "cli/commands/edit_each_command.hpp"
#include "cli/commands/edit_files_command.hpp"
#include "cli/commands/edit_output.hpp"
#include "cli/commands/edit_session.hpp"
#include "cli/commands/edit_together_command.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/share_dir.hpp"
#include "cli/progress_bar.hpp"
#include "cli/window_note.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/answer_rule.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"

namespace rometrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kGreedyTokens = 10;

std::optional<Facts> facts_of(const EditOptions& options, const EditSession& session) {
  std::vector<std::filesystem::path> files(options.facts.begin(), options.facts.end());
  if (files.empty() && session.is_demo()) files.push_back(share_dir() / "facts.json");
  if (files.empty()) return std::nullopt;
  return read_facts(files);
}

// The old object becomes the model's answer as it says it, a word.
void take_answer(EditTask& task, const EditSession& session, const std::stop_token& stop) {
  task.true_ids = say(session.model(), session.tokenizer(), trace_prompt_of(task, session.tokenizer()),
                      AnswerRule{AnswerRule::Which::kWord}, 0, stop);
  task.true_object.clear();
  for (const auto id : task.true_ids) task.true_object += session.tokenizer().token_bytes(id);
  if (strip(task.true_object).empty()) {
    throw Error("the model's answer to the prompt is white space, which is no old object; expected --true TEXT");
  }
}

// A trace of the prompt that follows an object in one of the models.
Json trace_json(const EditOptions& options, EditSession& session, const Decoder& model, const EditTask& task,
                const std::vector<std::int32_t>& target, std::span<const EditMark> marks,
                const CorruptionOptions& corruption, const std::stop_token& stop) {
  TraceRecord record;
  record.prompt = trace_prompt_of(task, session.tokenizer());
  record.prompt.target = target;
  record.model = model_record(session.located().name, model, session.stack());
  record.model.weights_sha256 = session.weights_sha256();
  record.model.edits.assign(marks.begin(), marks.end());
  record.run = run_record(options.run, model);
  record.options = trace_options(options.run);
  record.options.kinds = {Kind::kState, Kind::kMlp, Kind::kAttn};
  record.options.window = advised_window(model.config().layers);
  record.options.corruption = corruption;
  const Stopwatch watch;
  const auto clean = run_clean(model, record.prompt, record.options, stop);
  RunControl control;
  control.stop = stop;
  control.memory = memory_for_rows(options.run, model, least_memory(model, record.prompt, record.options));
  record.trace = trace_sweep(model, record.prompt, record.options, clean, control).trace;
  record.texts = token_texts(record.trace, record.prompt, session.tokenizer());
  record.run.seconds = watch.seconds();
  return to_json(record);
}

int run_edit_one(const EditOptions& options, const std::stop_token& stop) {
  EditOutput output(options);
  EditSession session(options, stop);
  const auto facts = facts_of(options, session);
  auto task = read_task(options, facts ? &*facts : nullptr);
  choose_threads(options.run, session.model(), session.tokenizer().encode_prompt(task.prompt).size());
  if (task.true_object.empty()) take_answer(task, session, stop);
  session.refuse_if_said(task);
  const auto layers = session.layers_for(&task);
  session.prepare(layers);

  ProgressBar bar(options.run.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto made = session.edit(std::span(&task, 1), layers, kGreedyTokens, bar.callback());
  const auto add_traces = [&](const Edit& edit, Json& json) {
    const auto& fact = made.facts.front();
    // Of embeddings, which no edit changes.
    const auto corruption = read_corruption(options.run, session.model(), session.tokenizer()).corruption;
    const auto of = [&](const Decoder& model, std::span<const EditMark> marks) {
      return Json{{"new", trace_json(options, session, model, task, fact.request.target_ids, marks, corruption, stop)},
                  {"old", trace_json(options, session, model, task, fact.true_ids, marks, corruption, stop)}};
    };
    auto marks = session.stack().marks();
    const auto before = of(session.model(), marks);
    const auto bytes = edit_file_bytes(edit);
    Sha256 hash;
    hash.update(std::as_bytes(std::span(bytes)));
    marks.push_back({hash.hex_digest(), edit.method, layers, 1});
    json["traces"] = {{"before", before}, {"after", of(*made.model, marks)}};
  };
  output.write(session, made, layers, options.trace ? add_traces : EditOutput::Further(), stop);
  return kDone;
}

}  // namespace

int run_edit(const EditOptions& options, const std::stop_token& stop) {
  if (options.show) return show_edit_file(*options.show, stop);
  if (options.write) return write_edited_model(options.run, *options.write, stop);
  if (options.each) return run_edit_each(options, stop);
  if (options.together) return run_edit_together(options, stop);
  return run_edit_one(options, stop);
}

}  // namespace rometrace::cli
