#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "rometrace/trace/trace.hpp"

namespace rometrace::cli {

/// The command line, checked as far as that is possible without a model.
struct Options {
  std::string prompt;
  std::string subject;
  std::optional<std::string> model;  ///< folder or name; none: ROMETRACE_MODEL, else the demo model
  std::string revision = "main";
  std::vector<Kind> kinds;
  std::int64_t window = 10;
  std::int64_t samples = 10;
  std::uint32_t seed = 1;
  std::string noise_text = "s3";  ///< as given
  NoiseRule noise;
  std::optional<std::string> noise_facts;  ///< facts file whose subjects set sigma; none: the one shipped
  bool replace = false;
  std::optional<std::string> target;
  std::optional<std::string> expect;
  bool special_tokens = false;
  Engine engine = Engine::kSweep;
  std::optional<std::int64_t> memory;  ///< bytes of rows the sweep may hold; none: of what is free
  std::string device = "cpu";
  std::string dtype = "float32";
  bool tf32 = false;
  int threads = 0;                    ///< 0: one a core, or one for small models
  std::optional<std::string> output;  ///< file; none or "-": stdout
  bool json = false;
  bool verbose = false;
  bool quiet = false;
};

/// Options, or the exit status if the command line has been dealt with (--help, --version, an error: one line printed).
std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace rometrace::cli
