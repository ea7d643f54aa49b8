#include "rometrace/facts/facts.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "facts/facts_reader.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/ascii_case.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/noise.hpp"
#include "text/text_stream.hpp"

namespace rometrace {
namespace {

bool is_standard_input(const std::filesystem::path& path) {
  return path == "-";
}

Facts read_files(std::span<const std::filesystem::path> files, Need need, std::optional<Limit> limit = std::nullopt) {
  if (files.empty()) throw Error("no facts file is named; expected one or more, or - for standard input");
  if (std::count_if(files.begin(), files.end(), &is_standard_input) > 1) {
    throw Error("standard input (-) is named twice as a facts file; it can be read once");
  }
  FactsReader reader(need, limit);
  for (const std::filesystem::path& file : files) {
    const bool is_input = is_standard_input(file);
    auto text = is_input ? TextStream::of_standard_input() : TextStream::of_file(file);
    FactsSource source;
    source.name = is_input ? text.label() : label_of(file.filename());
    reader.read(text, std::move(source));
  }
  return reader.take();
}

bool is_ascii_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/// `text` with each run of characters that are neither ASCII letters, digits nor outside ASCII as one `joint`, none at
/// the ends.
std::string slug(std::string_view text, char joint) {
  std::string result;
  for (const char c : text) {
    const bool is_kept = is_ascii_alphanumeric(c) || static_cast<unsigned char>(c) >= 0x80;
    if (is_kept || (!result.empty() && result.back() != joint)) result += is_kept ? c : joint;
  }
  if (!result.empty() && result.back() == joint) result.pop_back();
  return result;
}

std::string made_id(const Fact& fact) {
  const std::string relation = slug(fact.relation.value_or(""), '_');
  const std::string subject = ascii_lower(slug(fact.subject, '-'));
  return (relation.empty() ? "fact" : relation) + "/" + (subject.empty() ? "subject" : subject);
}

/// The id and place of a record; no id if it gives none.
struct Identity {
  const std::string* id = nullptr;
  const std::string* where = nullptr;
};

Identity identity_of(const std::variant<Fact, BadRecord>& record) {
  if (const auto* fact = std::get_if<Fact>(&record)) return {fact->id.empty() ? nullptr : &fact->id, &fact->where};
  const auto& bad = std::get<BadRecord>(record);
  return {bad.id ? &*bad.id : nullptr, &bad.where};
}

void put_in_front(const std::string& front, std::variant<Fact, BadRecord>& record) {
  if (auto* fact = std::get_if<Fact>(&record)) {
    if (fact->id.empty()) return;
    fact->id.insert(0, front);
    fact->id_is_number = false;
  } else if (auto& bad = std::get<BadRecord>(record); bad.id) {
    bad.id->insert(0, front);
    bad.id_is_number = false;
  }
}

/// The ids of a file that has one of a file before it get the file's name in front, all of them: data sets number their
/// files' records from 0.
void tell_files_apart(Facts& facts) {
  std::unordered_set<std::string> taken;
  auto rest = std::span(facts.records);
  for (const FactsSource& source : facts.sources) {
    const auto records = rest.first(static_cast<std::size_t>(source.records));
    rest = rest.subspan(records.size());
    const auto repeats = [&](const std::string& front) {
      return std::any_of(records.begin(), records.end(), [&](const auto& record) {
        const auto* id = identity_of(record).id;
        return id != nullptr && taken.contains(front + *id);
      });
    };
    if (repeats("")) {
      std::string front = source.name + "/";
      for (int number = 2; repeats(front); ++number) front = source.name + "-" + std::to_string(number) + "/";
      for (auto& record : records) put_in_front(front, record);
      for (auto& record : records) {
        auto* fact = std::get_if<Fact>(&record);
        if (fact == nullptr || fact->id.empty() || !fact->remark.empty()) continue;
        fact->remark =
            source.name + ": has ids of a file before it; its own have its name in front, as " + in_quotes(fact->id);
        break;
      }
    }
    for (const auto& record : records) {
      if (const auto* id = identity_of(record).id) taken.insert(*id);
    }
  }
}

/// Facts whose given id another record has already become bad records.
void refuse_repeated_ids(Facts& facts) {
  std::unordered_map<std::string, std::size_t> first_with;
  for (std::size_t i = 0; i < facts.records.size(); ++i) {
    const Identity identity = identity_of(facts.records[i]);
    if (identity.id == nullptr) continue;
    const auto [first, is_first] = first_with.emplace(*identity.id, i);
    auto* fact = std::get_if<Fact>(&facts.records[i]);
    if (is_first || fact == nullptr) continue;
    const std::string shown = fact->id_is_number ? fact->id : in_quotes(fact->id);
    std::string message = fact->where + ": id " + shown + " is also that of " +
                          *identity_of(facts.records[first->second]).where + "; each record needs an id of its own";
    facts.records[i] = BadRecord{fact->record, fact->where, fact->id, fact->id_is_number, std::move(message)};
  }
}

void make_missing_ids(Facts& facts) {
  std::unordered_set<std::string> taken;
  for (const auto& record : facts.records) {
    if (const Identity identity = identity_of(record); identity.id != nullptr) taken.insert(*identity.id);
  }
  std::unordered_map<std::string, std::int64_t> last_number;  // of each made id, so that many repeats stay cheap
  for (auto& record : facts.records) {
    auto* fact = std::get_if<Fact>(&record);
    if (fact == nullptr || !fact->id.empty()) continue;
    const std::string made = made_id(*fact);
    std::int64_t& number = last_number[made];
    do {
      fact->id = ++number == 1 ? made : made + "-" + std::to_string(number);
    } while (!taken.insert(fact->id).second);
  }
}

/// Indices of the records with one of `ids`.
std::vector<std::size_t> with_ids(const Facts& facts, const std::vector<std::string>& ids) {
  std::unordered_map<std::string_view, bool> found;
  for (const std::string& id : ids) found.emplace(id, false);
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < facts.records.size(); ++i) {
    const Identity identity = identity_of(facts.records[i]);
    if (identity.id == nullptr) continue;
    if (const auto match = found.find(*identity.id); match != found.end()) {
      match->second = true;
      chosen.push_back(i);
    }
  }
  for (const std::string& id : ids) {
    if (found.at(id)) continue;
    std::string names;
    for (const FactsSource& source : facts.sources) names += (names.empty() ? "" : ", ") + one_line(source.name);
    throw Error("no record of " + names + " has the id " + in_quotes(id));
  }
  return chosen;
}

/// As many of `chosen` at random, in their order.
void keep_sample(std::vector<std::size_t>& chosen, std::int64_t sample, std::uint32_t seed) {
  const std::size_t size = chosen.size();
  if (static_cast<std::uint64_t>(sample) >= size) return;
  const auto count = static_cast<std::size_t>(sample);
  RandomState random(seed);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t left = size - i;
    const auto step = static_cast<std::size_t>(std::floor(random.random_sample() * static_cast<double>(left)));
    std::swap(chosen[i], chosen[i + std::min(step, left - 1)]);
  }
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
}

/// The subjects of the records beyond the limit are kept, not the records.
void leave_out_beyond(Facts& facts, std::size_t limit) {
  if (facts.records.size() <= limit) return;
  for (auto& record : std::span(facts.records).subspan(limit)) {
    if (auto* fact = std::get_if<Fact>(&record)) facts.further_subjects.push_back(std::move(fact->subject));
  }
  facts.records.erase(facts.records.begin() + static_cast<std::ptrdiff_t>(limit), facts.records.end());
  facts.records.shrink_to_fit();
}

void check_at_least_one(const std::optional<std::int64_t>& value, const char* name) {
  if (value && *value < 1) {
    throw Error(std::string(name) + " is " + std::to_string(*value) + "; expected 1 or more");
  }
}

Facts read_records(std::span<const std::filesystem::path> files, Need need, const std::optional<Limit>& limit) {
  if (limit) check_at_least_one(limit->records, "limit");
  Facts facts = read_files(files, need, limit);
  tell_files_apart(facts);
  refuse_repeated_ids(facts);
  make_missing_ids(facts);
  if (limit) leave_out_beyond(facts, static_cast<std::size_t>(limit->records));
  return facts;
}

}  // namespace

Facts read_facts(std::span<const std::filesystem::path> files, std::optional<Limit> limit) {
  return read_records(files, Need::kWordings, limit);
}

Facts read_edit_facts(std::span<const std::filesystem::path> files, std::optional<Limit> limit) {
  return read_records(files, Need::kEdit, limit);
}

std::vector<std::string> subjects_of(const Facts& facts) {
  std::vector<std::string> subjects;
  for (const auto& record : facts.records) {
    if (const auto* fact = std::get_if<Fact>(&record)) subjects.push_back(fact->subject);
  }
  subjects.insert(subjects.end(), facts.further_subjects.begin(), facts.further_subjects.end());
  return subjects;
}

std::vector<std::string> prompts_of(const Facts& facts) {
  std::vector<std::string> prompts;
  for (const auto& record : facts.records) {
    const auto* fact = std::get_if<Fact>(&record);
    if (fact == nullptr) continue;
    for (const auto& wording : fact->wordings) prompts.push_back(wording.prompt);
  }
  return prompts;
}

std::vector<std::string> read_subjects(const std::filesystem::path& file) {
  const Facts facts = read_files(std::span(&file, 1), Need::kSubject);
  for (const auto& record : facts.records) {
    if (const auto* bad = std::get_if<BadRecord>(&record)) throw Error(bad->message);
  }
  return subjects_of(facts);
}

std::vector<std::size_t> select(const Facts& facts, const Selection& selection) {
  check_at_least_one(selection.sample, "sample");
  check_at_least_one(selection.limit, "limit");
  std::vector<std::size_t> chosen;
  if (selection.ids.empty()) {
    chosen.resize(facts.records.size());
    std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  } else {
    chosen = with_ids(facts, selection.ids);
  }
  if (selection.sample) keep_sample(chosen, *selection.sample, selection.sample_seed);
  if (selection.limit && static_cast<std::uint64_t>(*selection.limit) < chosen.size()) {
    chosen.resize(static_cast<std::size_t>(*selection.limit));
  }
  return chosen;
}

}  // namespace rometrace
