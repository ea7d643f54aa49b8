#include "cli/session.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cli/device.hpp"
#include "cli/share_dir.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/fingerprint.hpp"
#include "rometrace/model/hub.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/facts.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/sigma.hpp"

namespace rometrace::cli {
namespace {

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

}  // namespace

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

std::shared_ptr<const Gpt2> load_model(const Options& options, const std::filesystem::path& folder) {
  const auto device = parse_device(options.device);
  const Stopwatch loading;
  set_precision(options);
  auto model = Gpt2::load(folder, dtype_of(options), device);
  spdlog::debug("{}: {} parameters loaded in {:.2f} s", folder.string(), model->parameter_count(), loading.seconds());
  return model;
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
  record.engine = to_string(options.engine);
  record.noise_rule = options.noise_text;
  return record;
}

TraceOptions trace_options(const Options& options) {
  TraceOptions trace;
  trace.kinds = options.kinds;
  trace.window = options.window;
  trace.samples = options.samples;
  trace.seed = options.seed;
  trace.distribution = options.noise.distribution;
  trace.replace = options.replace;
  return trace;
}

double read_sigma(const Options& options, const Gpt2& model, const Tokenizer& tokenizer,
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

// libtorch's own choice is a thread a core. In a small model these wait for each other far longer than they compute,
// all the more so where other programs want the cores too.
void choose_threads(const Options& options, const Gpt2& model, std::size_t prompt_tokens, std::int64_t prompts) {
  constexpr double kWorthSharing = 5e8;  // floating-point operations of a layer's products
  const auto T = static_cast<double>(prompt_tokens), D = static_cast<double>(model.config().n_embd);
  auto rows = static_cast<double>(options.samples * prompts) * T;
  if (options.engine == Engine::kSweep) {
    rows = std::min(1024.0, rows * T / 4 * static_cast<double>(model.config().n_layer));  // half way up the layers
  }
  if (options.threads > 0) {
    at::set_num_threads(options.threads);
  } else if (24 * D * D * rows < kWorthSharing) {
    at::set_num_threads(1);
  }
}

std::vector<Token> encode_option(const Tokenizer& tokenizer, const std::string& option, const std::string& text,
                                 SpecialTokens special) {
  try {
    return tokenizer.encode(text, special);
  } catch (const Error& error) {
    throw Error(option + ": " + error.what());
  }
}

WeightsHash::WeightsHash(const Gpt2& model, const std::stop_token& stop)
    : relay_(stop, [this] { source_.request_stop(); }),
      result_(std::async(std::launch::async, [files = model.weight_files(), token = source_.get_token()] {
        return weights_sha256(files, token);
      })) {}

}  // namespace rometrace::cli
