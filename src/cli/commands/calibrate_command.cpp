#include "cli/commands/calibrate_command.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands/batch_progress.hpp"
#include "cli/commands/batch_work.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/report_output.hpp"
#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/calibration_json.hpp"
#include "rometrace/report/calibration_text.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/calibration.hpp"
#include "rometrace/summary/summary_reader.hpp"
#include "rometrace/text/json_line.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {
namespace {

class Calibrator {
 public:
  Calibrator(const CalibrateOptions& options, const Replicas& models, const Tokenizer& tokenizer,
             const BatchRecord& batch, std::vector<BatchItem> items, Workers& workers, const std::stop_token& stop)
      : options_(options),
        models_(models),
        tokenizer_(tokenizer),
        batch_(batch),
        subjects_std_(batch.options.trace.corruption.sigma),
        items_(std::move(items)),
        calibration_(options.factors) {
    control_.stop = stop;
    control_.workers = &workers;
    const auto& model = models.first();
    const auto shapes = shapes_of(model, tokenizer, items_, batch.options);
    control_.memory = memory_for_batch(options.trace, models, least_memory(model, shapes, batch.options));
    batch_.options.chunk = batch_chunk(model, shapes, batch.options, control_);
  }

  CalibrationResult run() {
    trace_all();
    if (const auto more = failures_.untold(); more > 0) {
      spdlog::warn("{} {} counted only", count_of(more, "further failure"), more == 1 ? "was" : "were");
    }
    return calibration_.result();
  }

 private:
  void trace_all() {
    for (std::size_t factor = 0; factor < options_.factors.size(); ++factor) {
      trace_with(factor);
      if (factor == 0) keep_traced();
    }
  }

  void trace_with(std::size_t factor) {
    const auto count = options_.factors.size();
    BatchCounts counts;
    if (count > 1) counts.part = "factor " + std::to_string(factor + 1) + " of " + std::to_string(count);
    const auto wish = options_.trace.quiet ? BatchProgress::Wish::kNever : BatchProgress::Wish::kShown;
    BatchProgress progress(wish, counts, static_cast<std::int64_t>(items_.size()));
    control_.progress = progress.callback();
    batch_.run.noise_rule = "s" + factor_text(options_.factors[factor]);
    batch_.options.trace.corruption.sigma = options_.factors[factor] * subjects_std_;
    const auto at_once = static_cast<std::size_t>(batch_round(models_, batch_.options.chunk));
    for (std::size_t begin = 0; begin < items_.size(); begin += at_once) {
      const auto some = std::span(items_).subspan(begin, std::min(at_once, items_.size() - begin));
      const bool complete = trace_facts(
          models_, tokenizer_, some, batch_.options, control_,
          [&](std::size_t i, BatchResult&& result) { take(factor, begin + i, std::move(result), counts, progress); });
      if (!complete) throw Interrupted();
    }
  }

  void take(std::size_t factor, std::size_t place, BatchResult&& result, BatchCounts& counts, BatchProgress& progress) {
    const auto status = result.verdict.status;
    count(counts, status);
    if (status == Status::kSkipped) spdlog::debug("skipped fact {}: {}", result.fact.order, result.verdict.reason);
    if (status == Status::kFailed) failures_.add(progress, result.verdict.reason);
    if (factor == 0) {
      if (status == Status::kTraced) traced_.push_back(place);
      if (status != Status::kTraced) ++causes_[std::string(to_string(*result.verdict.cause))];
    }
    const auto where = batch_.run.noise_rule + ", fact " + std::to_string(result.fact.order);
    const auto record = trace_record(batch_, tokenizer_, std::move(result));
    calibration_.add(factor, parse_summary_line(to_line(to_json(record)), where));
    progress.update(counts);
  }

  // The clean runs decide which facts are traced, so the other factors need no more than these.
  void keep_traced() {
    if (traced_.empty()) {
      const bool other_answers = causes_.contains(std::string(to_string(Cause::kOtherAnswer)));
      throw Error("none of " + count_of(static_cast<std::int64_t>(items_.size()), "fact") + " was traced (" +
                  causes_text(causes_) + "); " +
                  (other_answers ? "--all traces facts all the same, --target object follows their objects"
                                 : "expected facts that the model can be asked for"));
    }
    std::vector<BatchItem> kept;
    for (const auto place : traced_) kept.push_back(items_[place]);
    items_ = std::move(kept);
  }

  const CalibrateOptions& options_;
  const Replicas& models_;
  const Tokenizer& tokenizer_;
  BatchRecord batch_;
  double subjects_std_;
  std::vector<BatchItem> items_;
  Calibration calibration_;
  RunControl control_;
  std::vector<std::size_t> traced_;             // places in items_, of the first factor
  std::map<std::string, std::int64_t> causes_;  // likewise
  FailureNotes failures_{"counted only"};
};

}  // namespace

int run_calibrate(const CalibrateOptions& options, const std::stop_token& stop) {
  const auto& trace = options.trace;
  ReportOutput output(trace.output, trace.json);
  const auto edits = read_edits(trace);
  const auto work = read_work(trace);
  const auto located = locate_model(trace, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  const auto models = load_models(trace, located.folder, edits, stop, devices_of(trace));
  const auto* const model = &models.first();
  say_window_note(trace, *model);
  WeightsHash hash(*model, edits, stop);
  CalibrationRecord record;
  record.batch = batch_record(trace, model_record(located.name, *model, edits), *model, tokenizer, work);
  record.subjects_std = record.batch.options.trace.corruption.sigma;
  const auto workers = start_workers(trace, *model, typical_length(work, tokenizer));
  record.batch.run.threads = workers->count();

  const Stopwatch watch;
  record.result = Calibrator(options, models, tokenizer, record.batch, work.items, *workers, stop).run();
  record.batch.run.seconds = watch.seconds();
  record.batch.model.weights_sha256 = hash.get();
  const auto& result = record.result;
  for (const auto& warning : result.warnings) spdlog::warn("{}", warning);
  output.write(
      to_json(record), [&](const TerminalStyle& style) { return render_calibration(record, style); }, stop);
  if (!output.shows_text()) {
    spdlog::info("{}: {} traced with {}", count_of(result.records, "fact"), result.traced,
                 count_of(static_cast<std::int64_t>(options.factors.size()), "factor"));
    spdlog::info(recommendation_text(result.recommendation));
  }
  return result.failed > 0 || !result.warnings.empty() ? kSomeNotTraced : kDone;
}

}  // namespace rometrace::cli
