#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "facts/csv_records.hpp"
#include "facts/fact_record.hpp"
#include "rometrace/facts/facts.hpp"

namespace rometrace {

/// Finds the layout of each text that it is given and collects its records, without a view to ids: those that are
/// missing stay empty, repeats are kept.
class FactsReader {
 public:
  explicit FactsReader(Need need) : need_(need) {}

  /// `label` opens messages; `source` comes with name and checksum and is completed. Throws Error as `read_facts`.
  void read(std::string_view text, const std::string& label, FactsSource source);

  Facts take() { return std::move(facts_); }

 private:
  void read_json(const nlohmann::json& value);
  void read_json_lines(std::string_view text);
  bool read_csv(std::string_view text);

  void define_relations(const nlohmann::json& relations, const std::string& where);
  void read_list(const nlohmann::json& list);
  void read_samples(const nlohmann::json& file, const std::string& where, const std::string& sample_where);
  void read_element(const nlohmann::json& record, const std::string& where);
  void add(const nlohmann::json& record, const Relations& relations, const std::string& where);
  void add_bad(const std::string& where, std::string message, std::optional<GivenId> id = std::nullopt);

  std::int64_t count() const { return static_cast<std::int64_t>(facts_.records.size()); }
  [[noreturn]] void refuse(const std::string& found) const;

  Need need_;
  Facts facts_;
  Relations relations_;
  std::string label_;   // of the text at hand
  std::string layout_;  // of its records, once one is seen
  std::string format_;
};

}  // namespace rometrace
