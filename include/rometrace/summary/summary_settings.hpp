#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "rometrace/summary/model_setting.hpp"
#include "rometrace/summary/summary_reader.hpp"

namespace rometrace {

/// What the lines of a summary have in common. Averages over different settings mean nothing, so each header and each
/// traced line is held against those before it.
class SummarySettings {
 public:
  /// Compares `line` with the lines before it in every field that both have: the model (all but its name), kinds and
  /// windows, what was asked of neurons, dtype, TF32, samples, seed, corruption and noise, the answer that is followed,
  /// which facts were let in. Lines of before there was a choice count as exact traces of clean values restored into
  /// noise. Where draws were added up to a precision, the precision must agree, not the samples. Positions are free:
  /// the averages are by role. Device, engine and threads change no more than rounding, and may differ. Throws Error
  /// naming field, both values and both places.
  void check(const SummaryLine& line);

  const nlohmann::ordered_json& model() const { return model_.model(); }  ///< of the first line with one; else null
  /// device, dtype, tf32, engine, approximate, threads, seed, samples, precision, direction, corruption, noise, kinds,
  /// window, head_window, knockout_window, target, all, special_tokens, only: each as all lines have it; null where
  /// they differ, or none says.
  nlohmann::ordered_json run() const;

 private:
  struct Seen {
    nlohmann::json value;
    std::string where;
    bool differs = false;
  };

  void agree(std::string_view name, const nlohmann::json& value, const std::string& where);
  void note(std::string_view name, const nlohmann::json& value, const std::string& where);
  void check_run(const SummaryLine& line);
  void check_windows(const SummaryLine& line);
  nlohmann::ordered_json shared(std::string_view name) const;

  std::map<std::string, Seen, std::less<>> seen_;
  ModelSetting model_;
};

}  // namespace rometrace
