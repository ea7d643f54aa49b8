#include "cli/commands/moments_command.hpp"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands/batch_work.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/files/report_output.hpp"
#include "cli/options/option_values.hpp"
#include "cli/progress_bar.hpp"
#include "cli/session.hpp"
#include "report/progress_words.hpp"
#include "rometrace/edit/moment_factor.hpp"
#include "rometrace/edit/moment_file.hpp"
#include "rometrace/edit/moment_text.hpp"
#include "rometrace/edit/second_moment.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/moments_json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/embedding_moments.hpp"
#include "text/count_text.hpp"
#include "text/size_text.hpp"

namespace rometrace::cli {
namespace {

/// How far it is: a bar on a terminal, else a plain line now and then (first after ten seconds, then once a minute).
class MomentProgress {
 public:
  explicit MomentProgress(bool quiet)
      : quiet_(quiet), bar_(quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal) {}

  Progress callback() {
    if (quiet_ || can_redraw()) return bar_.callback();
    return [this](std::int64_t done, std::int64_t total) {
      constexpr double kInterval = 60;
      const double now = watch_.seconds();
      if (now < next_ || done < 1) return;
      next_ = now + kInterval;
      const auto left = now * static_cast<double>(total - done) / static_cast<double>(done);
      spdlog::info("{} %, {} left", 100 * done / total, clock_time(left));
    };
  }

 private:
  bool quiet_;
  ProgressBar bar_;
  Stopwatch watch_;
  double next_ = 10;
};

/// "1.2 TFLOP".
std::string flops_text(double flops) {
  const bool large = flops >= 1e12;
  return three_digits(flops / (large ? 1e12 : 1e9)) + (large ? " TFLOP" : " GFLOP");
}

std::string duration_text(double seconds) {
  if (seconds < 60) return std::to_string(std::max(1L, std::lround(seconds))) + " s";
  if (seconds < 90 * 60) return std::to_string(std::lround(seconds / 60)) + " min";
  return three_digits(seconds / 3600) + " h";
}

std::string layers_text(const std::vector<std::int64_t>& layers) {
  std::string text = layers.size() == 1 ? "layer " : "layers ";
  for (std::size_t i = 0; i < layers.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(layers[i]);
  return text;
}

void check_layers(const std::vector<std::int64_t>& layers, const Decoder& model) {
  const auto L = model.config().layers;
  if (layers.back() < L) return;
  throw Error("--layers: the model has no layer " + std::to_string(layers.back()) + "; expected 0 to " +
              std::to_string(L - 1));
}

/// What there is to know of a text before it is run.
void say_text(const MomentText& text, std::int64_t width) {
  spdlog::info("{}: {}, {} tokens, {} times the {} that a key is wide", text.name, count_of(text.texts, "text"),
               text.tokens(), three_digits(static_cast<double>(text.tokens()) / static_cast<double>(width)), width);
  if (text.more) spdlog::info("texts behind these are left out: --tokens takes more");
  if (text.cut_texts > 0) {
    spdlog::info("{} {} cut to the {} tokens that the model takes", count_of(text.cut_texts, "text"),
                 text.cut_texts == 1 ? "was" : "were", text.cut);
  }
}

void say_cost(const std::vector<std::int64_t>& layers, const Decoder& model, const MomentText& text) {
  const auto cost = moment_cost(model.config(), text.tokens(), layers);
  const auto seconds = moment_seconds(model, text, layers);
  spdlog::info("{} to collect: {}, about {} at {} GFLOP/s; the sums take {}", layers_text(layers),
               flops_text(cost.flops), duration_text(seconds), three_digits(cost.flops / seconds / 1e9),
               size_text(cost.memory));
}

MomentSummary summary_of(const SecondMoment& moment, Activation activation, std::vector<std::string>& warnings) {
  MomentSummary summary;
  summary.layer = moment.layer;
  summary.width = moment.width();
  summary.trace = moment.mean.trace().item<double>();
  summary.frobenius = moment.mean.norm().item<double>();
  summary.ridge = default_ridge(moment, activation);
  if (auto note = few_tokens_note(moment)) warnings.push_back(std::move(*note));
  try {
    summary.condition = MomentFactor(moment, summary.ridge).condition();
  } catch (const Error& error) {
    warnings.emplace_back(error.what());
  }
  return summary;
}

}  // namespace

int run_moments(const MomentsOptions& options, const std::stop_token& stop) {
  const auto& trace = options.trace;
  ReportOutput output(std::nullopt, trace.json);
  std::optional<OutputFile> file;
  if (trace.output) file.emplace(*trace.output);
  MomentCache cache{default_cache_dir(), ""};
  if (cache.folder.empty() && !file) {
    throw Error("there is no folder to keep moments in (neither XDG_CACHE_HOME nor HOME is set); name a file with -o");
  }
  const auto located = locate_model(trace, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  const EditStack no_edits;
  const auto model = load_model(trace, located.folder, no_edits, stop);
  refuse_mixtures(model->config(), "second moments are");
  check_layers(options.layers, *model);
  WeightsHash hash(*model, no_edits, stop);
  const auto& config = model->config();
  constexpr std::size_t kRows = 1000;  // of a product
  choose_threads(trace, *model, kRows);

  const auto text = named("--text", [&] {
    return read_moment_text(options.texts, tokenizer, config.max_positions,
                            options.tokens.value_or(default_moment_tokens(config.mlp_width)), stop);
  });
  say_text(text, config.mlp_width);
  cache.weights_sha256 = hash.get();
  std::vector<std::int64_t> missing;
  for (const auto layer : options.layers) {
    if (!moment_is_cached(cache, *model, text, layer)) missing.push_back(layer);
  }
  if (!missing.empty()) say_cost(missing, *model, text);

  MomentsRecord record;
  record.model = model_record(located.name, *model, no_edits);
  record.model.weights_sha256 = cache.weights_sha256;
  record.run = run_record(trace, *model);
  record.text = text.name;
  record.text_sha256 = text.sha256;
  record.texts = text.texts;
  record.tokens = text.tokens();
  record.cut = text.cut;
  record.cut_texts = text.cut_texts;
  record.whole = !text.more;

  MomentProgress progress(trace.quiet);
  MomentControl control;
  control.progress = progress.callback();
  control.stop = stop;
  control.resumed = [&](std::int64_t texts) {
    spdlog::info("going on behind {} of {} texts, which an earlier run has done", texts, text.texts);
  };
  std::optional<MomentFileWriter> writer;
  const Stopwatch watch;
  try {
    cached_second_moments(*model, text, options.layers, cache, control, [&](SecondMoment moment) {
      if (stop.stop_requested()) throw Interrupted();
      if (file) {
        if (!writer) {
          writer.emplace(moment, options.layers, moment.width(),
                         [&](std::string_view bytes) { file->write(bytes, stop); });
        }
        writer->add(moment);
      }
      auto& layer = record.layers.emplace_back(summary_of(moment, config.activation, record.warnings));
      layer.cached = std::find(missing.begin(), missing.end(), moment.layer) == missing.end();
      layer.file = trace.output ? *trace.output : moment_cache_file(cache, *model, text, moment.layer).native();
    });
  } catch (const Interrupted&) {
    if (!cache.folder.empty()) spdlog::info("what is done is kept: the same command goes on from there");
    throw;
  }
  if (file) file->commit();
  record.run.seconds = watch.seconds();
  for (const auto& warning : record.warnings) spdlog::warn("{}", warning);
  output.write(
      to_json(record), [&](const TerminalStyle& style) { return render_moments(record, style); }, stop);
  return kDone;
}

}  // namespace rometrace::cli
