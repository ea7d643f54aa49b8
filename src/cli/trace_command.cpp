#include "cli/trace_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "cli/exit_status.hpp"
#include "cli/free_memory.hpp"
#include "cli/output_file.hpp"
#include "cli/progress_bar.hpp"
#include "cli/session.hpp"
#include "cli/terminal_info.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"

namespace rometrace::cli {
namespace {

std::vector<std::int32_t> ids_of(const std::vector<Token>& tokens) {
  std::vector<std::int32_t> ids;
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

TracePrompt read_prompt(const Tokenizer& tokenizer, const Options& options) {
  if (options.prompt.empty()) throw Error("--prompt is empty; expected the text that the model continues");
  const auto tokens = encode_option(tokenizer, "--prompt", options.prompt,
                                    options.special_tokens ? SpecialTokens::kParse : SpecialTokens::kAsText);
  if (find_invalid_utf8(options.subject)) {
    throw Error("--subject: " + in_quotes(options.subject) + " is not UTF-8; expected whole characters");
  }
  if (options.prompt.ends_with(' ')) {
    spdlog::warn(
        "the prompt ends with a space; GPT-2's words begin with theirs, so the answer may be lost; leave it out");
  }
  return {options.prompt, options.subject, ids_of(tokens), find_subject(tokens, options.prompt, options.subject)};
}

std::int32_t read_target(const Tokenizer& tokenizer, const std::string& target) {
  if (target.empty()) throw Error("--target is empty; expected the text of one token");
  const auto tokens = encode_option(tokenizer, "--target", target);
  if (tokens.size() == 1) return tokens.front().id;
  constexpr std::size_t kShown = 8;
  std::string pieces;
  for (const auto& token : std::span(tokens).first(std::min(kShown, tokens.size()))) {
    pieces += (pieces.empty() ? "" : ", ") + in_quotes(target.substr(token.begin, token.end - token.begin));
  }
  if (tokens.size() > kShown) pieces += ", …";
  std::string advice = "give one token";
  if (!target.starts_with(' ') && tokenizer.encode(" " + target).size() == 1) {
    advice = in_quotes(" " + target) + ", with a space in front, is one";
  }
  throw Error("--target: " + in_quotes(target) + " is " + std::to_string(tokens.size()) + " tokens (" + pieces +
              "); expected one; " + advice);
}

Trace trace_prompt(const Options& options, const Gpt2& model, const TraceRecord& record, const CleanRun& clean,
                   const std::stop_token& stop) {
  ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  RunControl control;
  control.progress = bar.callback();
  control.stop = stop;
  if (options.engine == Engine::kPlain) return trace_plain(model, record.prompt, record.options, clean, control);
  control.memory = memory_for_rows(options, model, least_memory(model, record.prompt, record.options));
  const auto sweep = trace_sweep(model, record.prompt, record.options, clean, control);
  spdlog::debug("{} over the layers; token-layers: {} keys and values, {} attention, {} MLP; {} answers; {:.4g} TFLOP",
                sweep.passes == 1 ? "1 pass" : fmt::format("{} passes", sweep.passes), sweep.work.keys_values,
                sweep.work.attention, sweep.work.mlp, sweep.work.answers, sweep.work.flops(model.config()) / 1e12);
  return sweep.trace;
}

// Skipped if the model's top answer is not the one expected.
Verdict verdict_of(const Options& options, const TokenTexts& texts) {
  if (!options.expect || strip(texts.prediction) == strip(*options.expect)) return {};
  return Verdict::skipped(Cause::kOtherAnswer, "the model's answer is " + in_quotes(texts.prediction) + ", not " +
                                                   in_quotes(*options.expect));
}

// Where the JSON goes: to -o's file; to stdout if that is asked for, or is no terminal and no file was named.
void write_json(const Options& options, std::optional<OutputFile>& file, const nlohmann::ordered_json& json,
                const std::stop_token& stop) {
  const auto line = to_line(json) + "\n";
  if (file) {  // first: a stdout that fails then loses nothing
    file->write(line, stop);
    file->commit();
  }
  if (options.json || (!file && (!is_terminal(STDOUT_FILENO) || options.output == "-"))) write_stdout(line, stop);
}

}  // namespace

// On the CPU more than the default saves little, as another pass repeats no more than the corrupted run; but a default
// never refuses a prompt for which there is memory.
std::int64_t memory_for_rows(const Options& options, const Gpt2& model, std::int64_t least) {
  if (options.memory) return *options.memory;
  const auto half = free_memory(model.device()) / 2;
  if (!model.device().is_cpu()) return half;
  return std::min(half, std::max(RunControl().memory, least));
}

int run_trace(const Options& options, const std::stop_token& stop) {
  std::optional<OutputFile> file;
  if (options.output && *options.output != "-") file.emplace(*options.output);

  const auto located = locate_model(options);
  const auto tokenizer = Tokenizer::load(located.folder);
  TraceRecord record;
  record.prompt = read_prompt(tokenizer, options);
  const auto model = load_model(options, located.folder);
  choose_threads(options, *model, record.prompt.token_ids.size());
  record.model = model_record(located.name, *model);
  record.run = run_record(options, *model);
  record.options = trace_options(options);
  record.options.sigma = read_sigma(options, *model, tokenizer);
  if (options.target) record.options.target = read_target(tokenizer, *options.target);
  spdlog::debug("noise {}: sigma {}", options.noise_text, record.options.sigma);

  const Stopwatch tracing;
  const auto clean = run_clean(*model, record.prompt, record.options, stop);
  record.trace = clean.trace;
  record.texts = token_texts(record.trace, record.prompt, tokenizer);
  // Hashing gigabytes takes a while; it runs beside the trace, once the clean run has shown that the input is good.
  WeightsHash hash(*model, stop);
  record.verdict = verdict_of(options, record.texts);
  if (record.verdict.status == Status::kTraced) record.trace = trace_prompt(options, *model, record, clean, stop);
  record.run.seconds = tracing.seconds();
  record.model.weights_sha256 = hash.get();

  write_json(options, file, to_json(record), stop);
  if (record.verdict.status == Status::kSkipped) {
    spdlog::warn("skipped: {}", record.verdict.reason);
    return kSomeNotTraced;
  }
  if (is_terminal(STDOUT_FILENO) && !options.json && options.output != "-") {
    write_stdout(render_heat_maps(record.trace, record.prompt, record.texts, terminal_style(STDOUT_FILENO)), stop);
  }
  return kDone;
}

}  // namespace rometrace::cli
