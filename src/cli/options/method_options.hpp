#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options/options.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace rometrace::cli {

/// The options that say what a trace changes, with what, and what it reads: of a single prompt and of a batch.
class MethodOptions {
 public:
  /// Adds them to `app`; their values go to `options`, and all has to stay until complete().
  void add_to(CLI::App& app, Options& options);

  /// Reads the values that are words and refuses what does not go together. Throws CLI::ParseError, Error.
  void complete(Options& options) const;

 private:
  bool given(const char* name) const;
  void complete_kinds(Options& options) const;
  void complete_neurons(Options& options) const;
  void complete_corruption(Options& options) const;
  void complete_readings(Options& options) const;
  void refuse_for_gradient(const Options& options) const;
  static void refuse_for_both(const Options& options);

  CLI::App* app_ = nullptr;
  std::vector<std::string> kinds_ = {"state", "mlp", "attn"}, sever_, measures_;
  std::int64_t top_ = NeuronOptions().top;
  std::string layers_, rank_by_ = to_string(NeuronRule()), sets_, neurons_;
  std::string positions_ = "all", direction_ = "denoising", corrupt_ = "noise", answer_ = "token", engine_ = "sweep";
};

}  // namespace rometrace::cli
