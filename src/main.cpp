// Command line -> options -> one trace -> exit status.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cli/device.hpp"
#include "cli/free_memory.hpp"
#include "cli/options.hpp"
#include "cli/output_file.hpp"
#include "cli/process.hpp"
#include "cli/progress_bar.hpp"
#include "cli/share_dir.hpp"
#include "cli/stopwatch.hpp"
#include "cli/terminal_info.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/fingerprint.hpp"
#include "rometrace/model/gpt2.hpp"
#include "rometrace/model/hub.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/study/facts.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sigma.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/version.hpp"

namespace rometrace::cli {
namespace {

constexpr int kTraced = 0;
constexpr int kSkipped = 1;
constexpr int kCouldNotRun = 2;
constexpr int kInterrupted = 130;

void set_up_log() {
  auto logger = spdlog::stderr_logger_st("rometrace");
  logger->set_pattern("rometrace: %v");
  spdlog::set_default_logger(std::move(logger));
}

spdlog::level::level_enum log_level(const Options& options) {
  return options.quiet ? spdlog::level::err : options.verbose ? spdlog::level::debug : spdlog::level::info;
}

struct NamedFolder {
  std::string name;  // as the user gave it
  std::filesystem::path folder;
};

NamedFolder locate_model(const Options& options) {
  if (options.model && options.model->empty()) throw Error("--model is empty; expected a folder or a model's name");
  const char* setting = std::getenv("ROMETRACE_MODEL");
  const std::string name = options.model ? *options.model : setting != nullptr ? setting : "";
  if (!name.empty()) return {name, resolve_model(name, options.revision)};
  spdlog::info(
      "using the demo model that comes with rometrace (a toy that knows a thousand facts); "
      "--model chooses another");
  return {"rometrace-demo", share_dir() / "demo"};
}

std::vector<std::int32_t> ids_of(const std::vector<Token>& tokens) {
  std::vector<std::int32_t> ids;
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

// The tokens of an option's value; errors name the option.
std::vector<Token> encode_option(const Tokenizer& tokenizer, const std::string& option, const std::string& text,
                                 SpecialTokens special = SpecialTokens::kAsText) {
  try {
    return tokenizer.encode(text, special);
  } catch (const Error& error) {
    throw Error(option + ": " + error.what());
  }
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

double read_sigma(const Options& options, const Gpt2& model, const Tokenizer& tokenizer) {
  if (!options.noise.of_subjects) return options.noise.scale;
  if (options.noise_facts && options.noise_facts->empty()) throw Error("--noise-facts is empty; expected a file");
  const auto file = options.noise_facts ? std::filesystem::path(*options.noise_facts) : share_dir() / "facts.json";
  try {
    return options.noise.scale * subject_embedding_std(model, tokenizer, read_subjects(file));
  } catch (const Error& error) {
    const std::string message = error.what();
    const std::string where = message.starts_with(label_of(file)) ? "" : label_of(file) + ": ";
    throw Error((options.noise_facts ? "--noise-facts: " : "") + where + message);
  }
}

std::string strip(const std::string& text) {
  const auto* const space = " \t\n\v\f\r";
  const auto begin = text.find_first_not_of(space);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(space) + 1 - begin);
}

// libtorch's own choice is a thread a core. In a small model these wait for each other far longer than they compute,
// all the more so where other programs want the cores too.
void choose_threads(const Options& options, const Gpt2& model, std::size_t prompt_tokens) {
  constexpr double kWorthSharing = 5e8;  // floating-point operations of a layer's products
  const auto T = static_cast<double>(prompt_tokens), D = static_cast<double>(model.config().n_embd);
  auto rows = static_cast<double>(options.samples) * T;
  if (options.engine == Engine::kSweep) {
    rows = std::min(1024.0, rows * T / 4 * static_cast<double>(model.config().n_layer));  // half way up the layers
  }
  if (options.threads > 0) {
    at::set_num_threads(options.threads);
  } else if (24 * D * D * rows < kWorthSharing) {
    at::set_num_threads(1);
  }
}

TraceOptions trace_options(const Options& options, const Gpt2& model, const Tokenizer& tokenizer) {
  TraceOptions trace;
  trace.kinds = options.kinds;
  trace.window = options.window;
  trace.samples = options.samples;
  trace.seed = options.seed;
  trace.distribution = options.noise.distribution;
  trace.sigma = read_sigma(options, model, tokenizer);
  trace.replace = options.replace;
  if (options.target) trace.target = read_target(tokenizer, *options.target);
  return trace;
}

ModelRecord model_record(const std::string& name, const Gpt2& model) {
  ModelRecord record;
  record.name = name;
  record.architecture = model.config().architecture;
  record.layers = model.config().n_layer;
  record.width = model.config().n_embd;
  record.heads = model.config().n_head;
  record.parameters = model.parameter_count();
  return record;
}

RunRecord run_record(const Options& options, const Gpt2& model) {
  RunRecord record;
  record.device = model.device().str();
  record.dtype = options.dtype;
  record.threads = at::get_num_threads();
  record.engine = options.engine == Engine::kSweep ? "sweep" : "plain";
  record.noise_rule = options.noise_text;
  return record;
}

// On a GPU, sums are not rounded below float32 unless that is asked for.
void set_precision(const Options& options) {
  auto& context = at::globalContext();
  context.setAllowTF32CuBLAS(options.tf32);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(false);
}

at::ScalarType dtype_of(const Options& options) {
  if (options.dtype == "float64") return at::kDouble;
  if (options.dtype == "bfloat16") return at::kBFloat16;
  if (options.dtype == "float16") return at::kHalf;
  return at::kFloat;
}

// Bytes of rows for the sweep. On the CPU more than the default saves little, as another pass repeats no more than the
// corrupted run; but a default never refuses a prompt for which there is memory.
std::int64_t memory_for_rows(const Options& options, const Gpt2& model, const TraceRecord& record) {
  if (options.memory) return *options.memory;
  const auto half = free_memory(model.device()) / 2;
  if (!model.device().is_cpu()) return half;
  return std::min(half, std::max(RunControl().memory, least_memory(model, record.prompt, record.options)));
}

Trace trace_prompt(const Options& options, const Gpt2& model, const TraceRecord& record, const CleanRun& clean,
                   const std::stop_token& stop) {
  ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  RunControl control;
  control.progress = bar.callback();
  control.stop = stop;
  if (options.engine == Engine::kPlain) return trace_plain(model, record.prompt, record.options, clean, control);
  control.memory = memory_for_rows(options, model, record);
  const auto sweep = trace_sweep(model, record.prompt, record.options, clean, control);
  spdlog::debug("{} over the layers; token-layers: {} keys and values, {} attention, {} MLP; {} answers; {:.4g} TFLOP",
                sweep.passes == 1 ? "1 pass" : fmt::format("{} passes", sweep.passes), sweep.work.keys_values,
                sweep.work.attention, sweep.work.mlp, sweep.work.answers, sweep.work.flops(model.config()) / 1e12);
  return sweep.trace;
}

// Why the fact is skipped: the model's top answer is not the one expected. Nothing if it is.
std::optional<std::string> reason_to_skip(const Options& options, const TokenTexts& texts) {
  if (!options.expect || strip(texts.prediction) == strip(*options.expect)) return std::nullopt;
  return "the model's answer is " + in_quotes(texts.prediction) + ", not " + in_quotes(*options.expect);
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

struct StopAtExit {
  std::stop_source& source;
  ~StopAtExit() { source.request_stop(); }
};

int run(const Options& options, std::stop_token stop) {
  std::optional<OutputFile> file;
  if (options.output && *options.output != "-") file.emplace(*options.output);
  const auto device = parse_device(options.device);

  const auto located = locate_model(options);
  const auto tokenizer = Tokenizer::load(located.folder);
  TraceRecord record;
  record.prompt = read_prompt(tokenizer, options);
  const Stopwatch loading;
  set_precision(options);
  const auto model = Gpt2::load(located.folder, dtype_of(options), device);
  choose_threads(options, *model, record.prompt.token_ids.size());
  record.model = model_record(located.name, *model);
  record.run = run_record(options, *model);
  spdlog::debug("{}: {} parameters loaded in {:.2f} s", located.folder.string(), record.model.parameters,
                loading.seconds());
  record.options = trace_options(options, *model, tokenizer);
  spdlog::debug("noise {}: sigma {}", options.noise_text, record.options.sigma);

  const Stopwatch tracing;
  const auto clean = run_clean(*model, record.prompt, record.options, stop);
  record.trace = clean.trace;
  record.texts = token_texts(record.trace, record.prompt, tokenizer);
  // Hashing gigabytes takes a while; it runs beside the trace, once the clean run has shown that the input is good.
  std::stop_source hashing;
  const std::stop_callback relay(stop, [&] { hashing.request_stop(); });
  auto fingerprint = std::async(
      std::launch::async, [&, token = hashing.get_token()] { return weights_sha256(model->weight_files(), token); });
  const StopAtExit no_longer_needed{hashing};  // should the trace fail
  const auto skip = reason_to_skip(options, record.texts);
  if (!skip) record.trace = trace_prompt(options, *model, record, clean, stop);
  record.run.seconds = tracing.seconds();
  record.model.weights_sha256 = fingerprint.get();

  write_json(options, file, skip ? to_json_skipped(record, *skip) : to_json(record), stop);
  if (skip) {
    spdlog::warn("skipped: {}", *skip);
    return kSkipped;
  }
  if (is_terminal(STDOUT_FILENO) && !options.json && options.output != "-") {
    write_stdout(render_heat_maps(record.trace, record.prompt, record.texts, terminal_style(STDOUT_FILENO)), stop);
  }
  return kTraced;
}

// The first line of a message: libtorch's errors go on with a C++ stack.
std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

int run_and_report(int argc, char** argv) {
  reserve_standard_descriptors();
  try {
    set_up_log();
    const auto stop = watch_stop_signals();
    const auto parsed = parse_options(argc, argv);
    if (const int* status = std::get_if<int>(&parsed)) return *status;
    const auto& options = std::get<Options>(parsed);
    spdlog::set_level(log_level(options));
    return run(options, stop);
  } catch (const Interrupted&) {
    spdlog::error("interrupted; nothing was written");
    return kInterrupted;
  } catch (const Error& error) {
    spdlog::error("{}", error.what());
  } catch (const c10::Error& error) {
    const auto message = first_line(error.what_without_backtrace());
    const bool memory = dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
                        message.find("can't allocate memory") != std::string::npos;
    if (memory) {
      spdlog::error("out of memory; a smaller --memory, fewer --samples or a shorter prompt need less ({})", message);
    } else {
      spdlog::error("libtorch failed: {}", message);
    }
  } catch (const std::bad_alloc&) {
    spdlog::error("out of memory");
  } catch (const std::exception& error) {
    spdlog::error("failed: {}", first_line(error.what()));
  }
  return kCouldNotRun;
}

}  // namespace
}  // namespace rometrace::cli

int main(int argc, char** argv) {
  return rometrace::cli::run_and_report(argc, argv);
}
