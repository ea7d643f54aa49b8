#include "cli/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/version.hpp"

namespace rometrace::cli {
namespace {

const std::vector<std::pair<std::string, Kind>> kKinds = {
    {"state", Kind::kState}, {"mlp", Kind::kMlp}, {"attn", Kind::kAttn}};

std::vector<Kind> parse_kinds(const std::vector<std::string>& names) {
  std::vector<Kind> kinds;
  for (const auto& name : names) {
    const auto known = std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& kind) { return kind.first == name; });
    if (known == kKinds.end()) {
      throw CLI::ValidationError("--kinds", in_quotes(name) + " is not a kind; expected state, mlp or attn");
    }
    if (std::find(kinds.begin(), kinds.end(), known->second) == kinds.end()) kinds.push_back(known->second);
  }
  return kinds;
}

const std::vector<std::string> kDtypes = {"float32", "float64", "bfloat16", "float16"};

Engine parse_engine(const std::string& name) {
  if (name == "sweep") return Engine::kSweep;
  if (name == "plain") return Engine::kPlain;
  throw CLI::ValidationError("--engine", in_quotes(name) + " is not an engine; expected sweep or plain");
}

/// A whole number in decimal digits, within [least, most]. CLI11's own reading takes "010" for eight.
template <typename Number>
std::function<void(const std::string&)> whole_number(const std::string& name, Number& number, std::int64_t least,
                                                     std::int64_t most) {
  return [=, &number](const std::string& text) {
    std::int64_t value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || value < least || value > most) {
      throw CLI::ValidationError(name, in_quotes(text) + "; expected a whole number from " + std::to_string(least) +
                                           " to " + std::to_string(most));
    }
    number = static_cast<Number>(value);
  };
}

/// Bytes: a number with K, M, G or T (times 1024) behind it, or none; "MB" and "MiB" mean M as well.
std::int64_t parse_size(const std::string& name, const std::string& text) {
  double number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  std::string unit(error == std::errc() ? stop : end, end);
  for (const auto* ending : {"iB", "B"}) {
    if (unit.ends_with(ending)) {
      unit.resize(unit.size() - std::strlen(ending));
      break;
    }
  }
  const std::string units = " KMGT";
  const auto power = unit.empty() ? 0 : unit.size() == 1 ? units.find(unit[0]) : std::string::npos;
  const double bytes = std::ldexp(number, 10 * static_cast<int>(power));
  if (error != std::errc() || power == std::string::npos || unit == " " || !(bytes >= 1 && bytes < 0x1p62)) {
    throw CLI::ValidationError(name,
                               in_quotes(text) + " is not a size; expected a number with K, M, G or T, as in 300M");
  }
  return static_cast<std::int64_t>(bytes);
}

/// The command line, last word first as CLI11 wants it. "--name=" becomes "--name" and an empty word: CLI11 would take
/// the next word for the value.
std::vector<std::string> reversed_words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    const bool empty_value = word.starts_with("--") && word.size() > 3 && word.find('=') == word.size() - 1;
    if (empty_value) word.pop_back();
    words.push_back(std::move(word));
    if (empty_value) words.emplace_back();
  }
  std::reverse(words.begin(), words.end());
  return words;
}

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  Options options;
  std::vector<std::string> kinds = {"state", "mlp", "attn"};
  std::string engine = "sweep";

  CLI::App app(
      "Causal tracing: where in a GPT-2 model does the answer to a prompt come from? Corrupts the subject's\n"
      "embeddings with noise, restores clean hidden states one place at a time, and reports which bring the\n"
      "answer back (arXiv 2202.05262).\n"
      "Result: JSON on stdout where it is piped, heat maps where it is a terminal.\n",
      "rometrace");
  app.set_version_flag("--version", std::string("rometrace ") + kVersion + " (libtorch " + kTorchVersion + ")");
  app.get_formatter()->column_width(28);
  app.footer(
      "Exit status: 0 traced; 1 skipped (--expect); 2 could not run; 130 interrupted.\n"
      "Environment: ROMETRACE_MODEL (default of --model), HF_HUB_CACHE and HF_HOME (where names are looked up),\n"
      "NO_COLOR (heat maps without colour).\n"
      "Example: rometrace --prompt \"Miles Davis plays the\" --subject \"Miles Davis\" --window 3");
  const auto value = [&](const std::string& name, auto& target, const std::string& description) {
    return app.add_option(name, target, description);
  };
  constexpr std::int64_t kMaxCount = std::int64_t{1} << 20;
  const auto number = [&](const std::string& name, auto& target, const std::string& description, std::int64_t least,
                          std::int64_t most) {
    return app.add_option_function<std::string>(name, whole_number(name, target, least, most), description);
  };

  value("--prompt", options.prompt, "Text that the model continues")->required()->type_name("TEXT");
  value("--subject", options.subject, "The part of the prompt to corrupt (its first occurrence)")
      ->required()
      ->type_name("TEXT");
  value("--model", options.model,
        "Model folder in Hugging Face layout, or a name in the local Hugging Face cache (gpt2-xl) [the demo model]")
      ->type_name("MODEL");
  value("--revision", options.revision, "Branch, tag or commit of a model given by name")
      ->type_name("REV")
      ->capture_default_str();

  value("--kinds", kinds, "What to restore: state, mlp, attn")
      ->delimiter(',')
      ->type_name("KINDS")
      ->capture_default_str()
      ->group("Trace");
  number("--window", options.window, "Layers restored together, for mlp and attn", 1, kMaxCount)
      ->type_name("W")
      ->default_str("10")
      ->group("Trace");
  number("--samples", options.samples, "Noise draws", 1, kMaxCount)->type_name("N")->default_str("10")->group("Trace");
  number("--seed", options.seed, "Seed of the noise (NumPy's RandomState), 0 to 4294967295", 0,
         std::numeric_limits<std::uint32_t>::max())
      ->type_name("SEED")
      ->default_str("1")
      ->group("Trace");
  value("--noise", options.noise_text,
        "A standard deviation (0.1); s<k>: k times that of the subjects' embeddings; u<x>: uniform in [-x, x]")
      ->type_name("RULE")
      ->capture_default_str()
      ->group("Trace");
  value("--noise-facts", options.noise_facts, "Facts file whose subjects set s<k> [the one that rometrace ships]")
      ->type_name("FILE")
      ->group("Trace");
  app.add_flag("--replace", options.replace, "Put noise in place of the embeddings instead of adding it")
      ->group("Trace");
  value("--target", options.target, "Follow this answer (one token, mind the leading space) instead of the top one")
      ->type_name("TEXT")
      ->group("Trace");
  value("--expect", options.expect, "Skip, with exit status 1, unless the model's top answer is this word")
      ->type_name("TEXT")
      ->group("Trace");
  app.add_flag("--special-tokens", options.special_tokens,
               "Read <|endoftext|> and the like in the prompt as special tokens, not as text")
      ->group("Trace");

  value("--engine", engine,
        "sweep: all cells in one pass up the layers; plain: one run of the model a cell, as in the paper")
      ->type_name("ENGINE")
      ->capture_default_str()
      ->group("Run");
  app.add_option_function<std::string>(
         "--memory", [&](const std::string& text) { options.memory = parse_size("--memory", text); },
         "What the sweep may hold of restored runs at once (300M, 2G); the rest is left for another pass [half of the "
         "free memory; on the CPU, 512M at most]")
      ->type_name("SIZE")
      ->group("Run");
  value("--device", options.device, "cpu, cuda or cuda:<i>")->type_name("DEVICE")->capture_default_str()->group("Run");
  value("--dtype", options.dtype,
        "Of the matrix products: float32, float64, bfloat16, or float16 (GPU). The rest stays in float32 or float64")
      ->type_name("DTYPE")
      ->capture_default_str()
      ->group("Run");
  app.add_flag("--tf32", options.tf32, "Let a GPU round float32 products to TF32: faster, three digits")->group("Run");
  number("--threads", options.threads, "CPU threads [one a core; 1 for small models]", 1, 4096)
      ->type_name("N")
      ->group("Run");

  value("-o,--output", options.output, "Write the JSON to this file instead of stdout; - is stdout")
      ->type_name("FILE")
      ->group("Output");
  app.add_flag("--json", options.json, "Write the JSON to stdout, even if it is a terminal or -o is given")
      ->group("Output");
  auto* verbose = app.add_flag("-v,--verbose", options.verbose, "Say more on stderr")->group("Output");
  app.add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group("Output")->excludes(verbose);

  try {
    app.parse(reversed_words(argc, argv));
    options.kinds = parse_kinds(kinds);
    options.engine = parse_engine(engine);
    if (std::find(kDtypes.begin(), kDtypes.end(), options.dtype) == kDtypes.end()) {
      throw CLI::ValidationError(
          "--dtype", in_quotes(options.dtype) + " is not a dtype; expected float32, float64, bfloat16 or float16");
    }
    if (options.tf32 && options.device == "cpu") {
      throw CLI::ValidationError("--tf32", "is for a GPU; expected --device cuda beside it");
    }
    options.noise = NoiseRule::parse(options.noise_text);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::cerr << "rometrace: " << one_line(error.what(), 400) << "; see rometrace --help\n";
    return 2;
  } catch (const Error& error) {
    std::cerr << "rometrace: --noise: " << error.what() << '\n';
    return 2;
  }
  return options;
}

}  // namespace rometrace::cli
