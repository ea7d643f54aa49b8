#include "cli/session.hpp"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cli/download.hpp"
#include "cli/files/share_dir.hpp"
#include "cli/machine/cores.hpp"
#include "cli/machine/device.hpp"
#include "cli/machine/free_memory.hpp"
#include "cli/options/option_values.hpp"
#include "cli/window_note.hpp"
#include "report/edits_text.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/hub/cache.hpp"
#include "rometrace/model/fingerprint.hpp"
#include "rometrace/model/precision.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/trace/embedding_moments.hpp"
#include "rometrace/trace/gradient.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sigma.hpp"
#include "rometrace/trace/sweep.hpp"
#include "text/gguf_header.hpp"
#include "text/packed_text.hpp"
#include "text/size_text.hpp"

namespace rometrace::cli {
namespace {

at::ScalarType dtype_of(const Options& options) {
  if (options.dtype == "float64") return at::kDouble;
  if (options.dtype == "bfloat16") return at::kBFloat16;
  if (options.dtype == "float16") return at::kHalf;
  return at::kFloat;
}

void say_choice(const DeviceChoice& choice) {
  if (!choice.note.empty()) spdlog::log(choice.warns ? spdlog::level::warn : spdlog::level::info, "{}", choice.note);
}

std::vector<c10::Device> one_device(const Options& options) {
  const auto choice = parse_device(options.device);
  say_choice(choice);
  return choice.devices;
}

// What weights may take: all but some for the rest of the program and the runs.
std::int64_t memory_for_weights(const Options& options, at::Device device) {
  constexpr std::int64_t kForRuns = std::int64_t{1} << 30;
  if (options.memory) return *options.memory - std::min(*options.memory / 4, kForRuns / 2);
  const auto free = free_memory(device);
  return free - std::min(kForRuns, free / 2);
}

struct TextTokens {
  TextRecord record;
  std::vector<std::int32_t> token_ids;
};

// The text that moments are of.
TextTokens read_text(const Options& options, const Tokenizer& tokenizer) {
  TextTokens text;
  const auto add = [&](const std::string& piece) {
    for (const auto& token : tokenizer.encode(piece)) text.token_ids.push_back(token.id);
  };
  if (options.noise_text_file) {
    if (options.noise_text_file->empty()) throw Error("--noise-text is empty; expected a file");
    if (std::error_code ignored; std::filesystem::is_character_file(*options.noise_text_file, ignored)) {
      throw Error("--noise-text: " + label_of(*options.noise_text_file) + " is a device; expected a text file");
    }
    const auto bytes = named("--noise-text", [&] {
      return unpacked(read_text_file(*options.noise_text_file, FileKind::kReadable),
                      label_of(*options.noise_text_file));
    });
    text.record.name = std::filesystem::path(*options.noise_text_file).filename().string();
    named("--noise-text", [&] {
      try {
        add(bytes);
      } catch (const Error& error) {
        throw Error(label_of(*options.noise_text_file) + ": " + error.what());
      }
    });
    Sha256 hash;
    hash.update(std::as_bytes(std::span(bytes)));
    text.record.sha256 = hash.hex_digest();
  } else {
    const auto file = share_dir() / "facts.json";
    const auto facts = read_facts(std::vector<std::filesystem::path>{file});
    for (const auto& prompt : prompts_of(facts)) add(prompt);
    text.record.name = file.filename().string();
    text.record.sha256 = facts.sources.front().sha256;
  }
  text.record.tokens = static_cast<std::int64_t>(text.token_ids.size());
  return text;
}

}  // namespace

std::vector<c10::Device> devices_of(const Options& options) {
  const auto choice = parse_devices(options.device);
  say_choice(choice);
  return choice.devices;
}

NamedFolder locate_model(const Options& options, const std::stop_token& stop) {
  if (options.model && options.model->empty())
    throw Error("--model is empty; expected a folder, a GGUF file or a model's name");
  const char* setting = std::getenv("ROMETRACE_MODEL");
  const std::string name = options.model ? *options.model : setting != nullptr ? setting : "";
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(name, ignored);
  if (name.empty() || is_folder || is_model_file(name)) {
    const auto refuse = [&](const std::string& option, const std::string& lacks) {
      const auto* what = is_folder ? " is a folder, which " : " is a file, which ";
      throw Error(option + ": " + (name.empty() ? "no model is named" : one_line(name) + what + lacks) +
                  "; expected the name of a model beside it");
    };
    if (options.revision) refuse("--revision " + one_line(*options.revision), "has no other revision");
    if (options.download) refuse("--download", "is there already");
  }
  const std::string revision = options.revision.value_or("main");
  if (!name.empty() && options.download) {
    const auto cached = find_complete_model(name, revision);
    return {name, cached ? *cached : download_model(name, revision, stop)};
  }
  if (name == kDemoName) return {kDemoName, share_dir() / "demo"};
  if (!name.empty()) {
    const auto path = resolve_model(name, revision);
    if (is_model_file(path)) config_of_model(path);  // its architecture is refused before its tokeniser is
    return {name, path};
  }
  spdlog::info(
      "using the demo model that comes with rometrace (a toy that knows a thousand facts); "
      "--model chooses another");
  return {kDemoName, share_dir() / "demo"};
}

EditStack read_edits(const Options& options) {
  std::vector<std::filesystem::path> paths;
  for (const auto& file : options.edits) {
    if (file.empty()) throw Error("--edit is empty; expected a file");
    paths.emplace_back(file);
  }
  auto edits = named("--edit", [&] { return EditStack::read(paths); });
  for (const auto& note : edits.notes()) spdlog::info("--edit: {}", note);
  return edits;
}

Replicas load_models(const Options& options, const std::filesystem::path& folder, const EditStack& edits,
                     const std::stop_token& stop, const std::vector<c10::Device>& devices, Transposes transposes) {
  const Stopwatch loading;
  set_gpu_precision(options.tf32 ? GpuPrecision::kTf32 : GpuPrecision::kFull);
  LoadOptions load;
  load.dtype = dtype_of(options);
  load.memory = memory_for_weights(options, devices.front());
  for (const auto device : devices) load.memory = std::min(*load.memory, memory_for_weights(options, device));
  load.transposes = transposes;
  load.stop = stop;
  load.changes = edits.changes();
  auto models = Replicas::load(folder, load, devices);
  const auto& model = models.first();
  for (const auto& remark : model.config().remarks) spdlog::warn("{}", remark);
  if (!edits.empty()) spdlog::info("the model is {}", edits_text(to_json(model_record({}, model, edits))));
  spdlog::debug("{}: {} parameters loaded in {:.2f} s", folder.string(), model.parameter_count(), loading.seconds());
  if (model.streamed()) {
    spdlog::info("the weights, {}, do not fit in {}: each layer is read from the files when it is used",
                 size_text(model.all_bytes()), size_text(*load.memory));
  }
  return models;
}

std::shared_ptr<const Decoder> load_model(const Options& options, const std::filesystem::path& folder,
                                          const EditStack& edits, const std::stop_token& stop, Transposes transposes) {
  return load_models(options, folder, edits, stop, one_device(options), transposes).all().front();
}

void say_window_note(const Options& options, const Decoder& model) {
  if (const auto note = window_note(options, model.config().layers)) spdlog::info("{}", *note);
}

void check_neurons(const Options& options, const Decoder& model) {
  if (!options.neurons) return;
  refuse_mixtures(model.config(), "neurons are");
  const auto* name = options.neurons->given.empty() ? "--layers" : "--neurons";
  named(name, [&] { return layers_of(*options.neurons, model.config()); });
}

std::int64_t length_of(const TracePrompt& prompt) {
  return static_cast<std::int64_t>(prompt.token_ids.size()) + prompt.answer_tokens() - 1;
}

void say_length_note(const Decoder& model, std::int64_t tokens) {
  const auto& config = model.config();
  if (tokens <= config.max_positions || tokens > config.longest_prompt()) return;  // what is too long, is refused
  spdlog::warn(
      "the longest text has {} tokens, and the model is made for {} (max_position_embeddings): what it says of it may "
      "make little sense",
      tokens, config.max_positions);
}

std::int64_t memory_for_rows(const Options& options, const Decoder& model, std::int64_t least) {
  if (options.memory) {
    const auto left = *options.memory - model.held_bytes();
    if (left >= least) return left;
    const std::string held =
        (model.streamed() ? "two layers with a part of the head (" : "the weights (") + size_text(model.held_bytes());
    if (left < 1) {
      throw Error("--memory: " + size_text(*options.memory) + " does not hold " + held +
                  "); expected more than that, with room for the prompt's runs");
    }
    throw Error("--memory: " + size_text(*options.memory) + " does not hold " + held +
                ") and the runs of the longest prompt (" + size_text(least) + "); expected at least " +
                size_text(model.held_bytes() + least) + ", or fewer samples");
  }
  // On the CPU more than the default saves little, as another pass repeats no more than the corrupted run; but a
  // default never refuses a prompt for which there is memory.
  const auto half = free_memory(model.device()) / 2;
  if (!model.device().is_cpu()) return half;
  return std::min(half, std::max(RunControl().memory, least));
}

Trace trace_prompt(const Options& options, const Decoder& model, const TracePrompt& prompt, const TraceOptions& asked,
                   const CleanRun& clean, Workers& workers, const Progress& progress, const std::stop_token& stop) {
  RunControl control;
  control.progress = progress;
  control.stop = stop;
  control.workers = &workers;
  if (options.memory) control.memory = std::max<std::int64_t>(1, *options.memory - model.held_bytes());
  if (options.memory) memory_for_rows(options, model, 1);  // refuses one that holds no layers
  if (options.engine == Engine::kGradient) return trace_gradient(model, prompt, asked, clean, control);
  if (options.engine == Engine::kPlain) return trace_plain(model, prompt, asked, clean, control);
  control.memory = memory_for_rows(options, model, least_memory(model, prompt, asked));
  const auto sweep = trace_sweep(model, prompt, asked, clean, control);
  spdlog::debug(
      "{} over the layers; token-layers: {} keys and values, {} attention, {} MLP{}; {} answers; {:.4g} TFLOP",
      sweep.passes == 1 ? "1 pass" : fmt::format("{} passes", sweep.passes), sweep.work.keys_values,
      sweep.work.attention, sweep.work.mlp,
      sweep.work.mixture == 0 ? "" : fmt::format(", {} mixture", sweep.work.mixture), sweep.work.answers,
      sweep.work.flops(model.config()) / 1e12);
  return sweep.trace;
}

ModelRecord model_record(const std::string& name, const Decoder& model, const EditStack& edits) {
  ModelRecord record;
  record.name = name;
  record.architecture = model.config().architecture;
  record.layers = model.config().layers;
  record.width = model.config().width;
  record.heads = model.config().heads;
  record.parameters = model.parameter_count();
  record.edits = edits.marks();
  return record;
}

RunRecord run_record(const Options& options, const Decoder& model) {
  RunRecord record;
  record.device = model.device().str();
  record.dtype = options.dtype;
  record.threads = at::get_num_threads();
  record.engine = to_string(options.engine);
  record.noise_rule = to_string(options.noise);
  record.tf32 = options.tf32;
  return record;
}

TraceOptions trace_options(const Options& options) {
  TraceOptions trace;
  trace.kinds = options.kinds;
  trace.neurons = options.neurons;
  trace.window = options.window;
  trace.samples = options.samples;
  trace.head_window = options.head_window;
  trace.knockout_window = options.knockout_window;
  trace.positions = options.positions;
  trace.direction = options.direction;
  trace.measures = options.measures;
  trace.precision = options.precision;
  trace.most_samples = options.most_samples;
  return trace;
}

CorruptionChoice read_corruption(const Options& options, const Decoder& model, const Tokenizer& tokenizer,
                                 const std::optional<SubjectList>& own) {
  using Distribution = NoiseRule::Distribution;
  CorruptionChoice choice;
  auto& corruption = choice.corruption;
  corruption.method = options.method;
  corruption.seed = options.seed;
  if (options.method == CorruptionMethod::kNoise) {
    corruption.distribution = options.noise.distribution;
    corruption.degrees_of_freedom = options.noise.degrees_of_freedom;
    corruption.replace = options.replace;
    if (corruption.distribution == Distribution::kGaussian || corruption.distribution == Distribution::kUniform) {
      corruption.sigma = read_sigma(options, model, tokenizer, own);
      return choice;
    }
  } else if (options.method != CorruptionMethod::kMean) {
    return choice;
  }
  auto [record, token_ids] = read_text(options, tokenizer);
  const bool mean_only = options.method == CorruptionMethod::kMean;
  try {
    corruption.moments = std::make_shared<const EmbeddingMoments>(
        mean_only ? mean_embedding(model, token_ids) : cached_embedding_moments(model, token_ids, default_cache_dir()));
  } catch (const Error& error) {
    throw Error(record.name + ": " + error.what());
  }
  choice.text = std::move(record);
  return choice;
}

double read_sigma(const Options& options, const Decoder& model, const Tokenizer& tokenizer,
                  const std::optional<SubjectList>& own) {
  if (!options.noise.of_subjects) return options.noise.scale;
  if (options.noise_facts && options.noise_facts->empty()) throw Error("--noise-facts is empty; expected a file");
  const auto read_file = [&]() -> SubjectList {
    const auto file = options.noise_facts ? std::filesystem::path(*options.noise_facts) : share_dir() / "facts.json";
    return {read_subjects(file), label_of(file)};
  };
  try {
    const auto list = own && !options.noise_facts ? *own : read_file();
    try {
      return options.noise.scale * subject_embedding_std(model, tokenizer, list.subjects);
    } catch (const Error& error) {
      throw Error(list.where + ": " + error.what());
    }
  } catch (const Error& error) {
    throw Error((options.noise_facts ? "--noise-facts: " : "") + std::string(error.what()));
  }
}

// As many as libtorch would take (OMP_NUM_THREADS, cores that are not two threads of one), within what is usable. To be
// asked before libtorch is told a number.
int default_threads() {
  static const int threads = std::min(at::get_num_threads(), usable_cores());
  return threads;
}

// libtorch's own choice is a thread a core. In a small model these wait for each other far longer than they compute,
// all the more so where other programs want the cores too.
void choose_threads(const Options& options, const Decoder& model, std::size_t prompt_tokens, std::int64_t prompts) {
  constexpr double kWorthSharing = 5e8;  // floating-point operations of a layer's products
  const auto T = static_cast<double>(prompt_tokens), D = static_cast<double>(model.config().width);
  const auto cores = default_threads();
  auto rows = static_cast<double>(options.samples * prompts) * T;
  if (options.engine == Engine::kSweep) {
    rows = std::min(1024.0, rows * T / 4 * static_cast<double>(model.config().layers));  // half way up the layers
  }
  const bool small = 24 * D * D * rows < kWorthSharing;
  at::set_num_threads(options.threads > 0 ? options.threads : small ? 1 : cores);
}

std::unique_ptr<Workers> start_workers(const Options& options, const Decoder& model, std::size_t prompt_tokens) {
  const auto cores = default_threads();
  choose_threads(options, model, prompt_tokens);
  if (!model.device().is_cpu()) return std::make_unique<Workers>(1);
  return std::make_unique<Workers>(options.threads > 0 ? options.threads : cores);
}

std::int32_t one_token(const Tokenizer& tokenizer, const std::string& option, const std::string& text) {
  if (text.empty()) throw Error(option + " is empty; expected the text of one token");
  const auto tokens = encode_option(tokenizer, option, text);
  if (tokens.size() == 1) return tokens.front().id;
  constexpr std::size_t kShown = 8;
  std::string pieces;
  for (const auto& token : std::span(tokens).first(std::min(kShown, tokens.size()))) {
    pieces += (pieces.empty() ? "" : ", ") + in_quotes(text.substr(token.begin, token.end - token.begin));
  }
  if (tokens.size() > kShown) pieces += ", …";
  std::string advice = "give one token";
  if (!text.starts_with(' ') && encode_answer(tokenizer, " " + text).size() == 1) {
    advice = in_quotes(" " + text) + ", with a space in front, is one";
  }
  throw Error(option + ": " + in_quotes(text) + " is " + std::to_string(tokens.size()) + " tokens (" + pieces +
              "); expected one; " + advice);
}

std::vector<Token> encode_option(const Tokenizer& tokenizer, const std::string& option, const std::string& text) {
  return named(option, [&] { return encode_answer(tokenizer, text); });
}

WeightsHash::WeightsHash(const Decoder& model, const EditStack& edits, const std::stop_token& stop)
    : edits_(edits),
      relay_(stop, [this] { source_.request_stop(); }),
      result_(std::async(std::launch::async, [this, files = model.weight_files(), token = source_.get_token()] {
        // A thread's first allocation sets up its part of the allocator, which must not meet memory that has run out.
        const auto first = std::make_unique<std::string>(std::size_t{256}, ' ');
        ready_.count_down();
        return cached_weights_sha256(files, default_cache_dir(), token);
      })) {
  ready_.wait();
}

std::string WeightsHash::get() {
  auto hash = result_.get();
  named("--edit", [&] { edits_.check_weights(hash); });
  return hash;
}

}  // namespace rometrace::cli
