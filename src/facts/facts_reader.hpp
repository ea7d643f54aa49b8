#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>

#include "facts/csv_records.hpp"
#include "facts/fact_record.hpp"
#include "rometrace/facts/facts.hpp"
#include "text/text_stream.hpp"

namespace rometrace {

/// Finds the layout of each text that it is given and collects its records, without a view to ids: those that are
/// missing stay empty, repeats are kept. Of JSON Lines, CSV and JSON lists it holds one record at a time beside those
/// that it has collected.
class FactsReader {
 public:
  /// Of records beyond `limit.records` it collects what `Limit::Beyond` says, without places, wordings and messages.
  explicit FactsReader(Need need, std::optional<Limit> limit = std::nullopt) : need_(need), limit_(limit) {}

  /// `source` comes with the name and is completed. Throws Error as `read_facts`.
  void read(TextStream& text, FactsSource source);

  Facts take() { return std::move(facts_); }

 private:
  void read_text(TextStream& text);
  void read_json(const nlohmann::json& value);
  void read_json_lines(TextStream& text);
  bool read_csv(TextStream& text);

  void define_relations(const nlohmann::json& relations, const std::string& where);
  void read_list(const nlohmann::json& list);
  void read_list(TextStream& text);
  void read_elements(const std::function<std::optional<nlohmann::json>()>& next);
  void read_samples(const nlohmann::json& file, const std::string& where, const std::string& sample_where);
  void read_element(const nlohmann::json& record, const std::string& where);
  void add(const nlohmann::json& record, const Relations& relations, const std::string& where);
  void add_bad(const std::string& where, std::string message, std::optional<GivenId> id = std::nullopt);

  std::int64_t count() const { return static_cast<std::int64_t>(facts_.records.size()); }
  bool is_beyond() const { return limit_ && count() >= limit_->records; }  ///< the next record
  bool is_full() const { return is_beyond() && limit_->beyond == Limit::Beyond::kNothing; }
  [[noreturn]] void refuse(const std::string& found) const;

  Need need_;
  std::optional<Limit> limit_;
  Facts facts_;
  Relations relations_;
  std::string label_;   // of the text at hand
  std::string layout_;  // of its records, once one is seen
  std::string format_;
};

}  // namespace rometrace
