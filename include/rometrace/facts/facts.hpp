#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "rometrace/text/subject.hpp"

namespace rometrace {

/// One way of asking for a fact's object: the text to be continued, with the subject in place.
struct Wording {
  std::string prompt;
  bool held_out = false;   ///< marked in the file as kept from training
  ByteRange subject = {};  ///< where the subject stands in `prompt`

  bool operator==(const Wording&) const = default;
};

/// A record that can be traced.
struct Fact {
  std::int64_t record = 0;    ///< from 1, counted over all files
  std::string where;          ///< "known_1000.json, record 17" or "facts.csv, line 3", for messages
  std::string id;             ///< as given, else made from relation and subject (see `read_facts`)
  bool id_is_number = false;  ///< the file gives a whole number; `id` is its decimal text
  std::string subject;        ///< without white space around it; each wording says where it has it
  std::optional<std::string> relation;
  std::optional<std::string> object;  ///< without white space around it; never empty
  std::vector<Wording> wordings;      ///< never empty, without repeats; the first is the prompt that is traced
  std::string remark;                 ///< one line on a choice that the record left open, and how it fell; else empty

  // Of read_edit_facts() only:
  std::optional<std::string> new_object;  ///< what an edit is to make the model say; as `object`
  /// The file's own prompts that should follow the edit, and those of other subjects that should not; whole texts,
  /// which need not hold the subject. Not `wordings`.
  std::vector<std::string> paraphrases, neighbours;
};

/// A record that cannot be traced.
struct BadRecord {
  std::int64_t record = 0;  ///< as for `Fact`
  std::string where;
  std::optional<std::string> id;  ///< where the file gives one that can be read
  bool id_is_number = false;
  std::string message;  ///< one line: where, what was found, what was expected
};

/// A file that was read, for the header of the results.
struct FactsSource {
  std::string name;          ///< without its folders; "standard input" for `-`
  std::string sha256;        ///< of its bytes, 64 hexadecimal digits
  std::int64_t records = 0;  ///< good and bad, as far as they were read
  std::string layout;        ///< in words: "known_1000 of ROME, JSON"
};

struct Facts {
  std::vector<std::variant<Fact, BadRecord>> records;  ///< in file order
  std::vector<FactsSource> sources;
  std::vector<std::string> further_subjects;  ///< of the good records that a limit left out, if they were asked for
};

/// How many records are to be read.
struct Limit {
  enum class Beyond {
    kNothing,   ///< reading stops: what follows is hashed, not looked at
    kSubjects,  ///< subjects, as if there were no limit: a record that would be a bad one has none
  };

  std::int64_t records = 0;
  Beyond beyond = Beyond::kNothing;
};

/// Reads facts files, one after another; "-" is standard input. Layouts are told by the content, never by the name:
///  - known_1000.json of the ROME paper: the prompt is the whole text ("template" is not complete there, and not read);
///  - CounterFact: the original ("requested_rewrite") and the flat layout ("ground_truth"); wordings are the prompt and
///    the paraphrases that hold the subject;
///  - relation files: "name", "prompt_templates", "prompt_templates_zs", "samples"; also a list of them;
///  - our own: {"schema": "rometrace/facts/1", "relations": ..., "facts": [...]}
///    (share/rometrace/schema/facts-1.schema.json);
///  - lists of tuples: "subject", "relation", "object" (or "attribute", "answer", "target", "ground_truth"), "prompt",
///    "id";
/// each as JSON or as JSON Lines (relations then stand in a line of their own), and tuples as CSV with a header, the
/// cells separated by commas, semicolons or tabs.
///
/// A prompt or template with "{}" has the subject there, and nowhere else, even where its text occurs again; a whole
/// text has it where "subject_at" says ("last", a number from 1, "B:E", [B, E]), else at its first occurrence.
///
/// A fact's wordings are its own prompt, its paraphrases, then those of its relation: first those that are not held
/// out. Relations that a file defines hold for the files after it too, until one defines the same name again.
///
/// Ids are a file's own: where a file has one of a file before it, all its ids get its name in front ("b.json/17"), and
/// a remark says so. A record with an id that another of its file has is a bad one.
///
/// An id that is missing is made: "relation/subject", the subject in lower-case ASCII with "-" for whatever is neither
/// ASCII letter, digit nor outside ASCII, and "-2", "-3" behind the second and third of the same. It changes only with
/// facts of that same id.
///
/// A record that cannot be used becomes a BadRecord. Throws Error, in one line naming the file: one that is missing,
/// empty, without records, not JSON (with line and column), or of no layout above.
///
/// Memory is for the records that are kept, and for one more: JSON Lines, CSV and JSON lists are read piece by piece,
/// packed or not; an object that holds all records (relation files, our own layout) is read whole. With a limit the
/// first records are kept, and what is wrong behind them does not matter unless Limit::Beyond asks for it; ids are made
/// and told apart among the records that were read.
Facts read_facts(std::span<const std::filesystem::path> files, std::optional<Limit> limit = std::nullopt);

/// The same with what an edit needs of the records: CounterFact's "target_new", "paraphrase_prompts" and
/// "neighborhood_prompts", its flat layout's "target_new", "rephrase_prompt" and "locality_prompt", and in any layout
/// "object_new", "paraphrases" and "neighbours". They may be missing; one that is no text, or no list of texts, makes a
/// BadRecord. A record with one old and one new object that are the same is a bad one.
Facts read_edit_facts(std::span<const std::filesystem::path> files, std::optional<Limit> limit = std::nullopt);

/// The subjects of all good records, in order and with repeats: of a relation file each sample counts once. Those that
/// a limit left out are among them, as far as they were asked for.
std::vector<std::string> subjects_of(const Facts& facts);

/// The prompts of all wordings of good records, in order and with repeats.
std::vector<std::string> prompts_of(const Facts& facts);

/// The subjects of a facts file of any layout, in order and with repeats. Only subjects are looked at: a record needs
/// no prompt. Throws Error as `read_facts`, and for the first record whose subject is missing, not a string or empty.
std::vector<std::string> read_subjects(const std::filesystem::path& file);

/// Which records to take. The steps follow each other in the order of the members.
struct Selection {
  std::vector<std::string> ids;        ///< those with one of these ids (a number as its decimal text); empty: all
  std::optional<std::int64_t> sample;  ///< so many of these, at random without replacement; all if there are fewer
  std::uint32_t sample_seed = 1;
  std::optional<std::int64_t> limit;  ///< the first so many of these
};

/// Indices into `facts.records` of the selected records, good and bad, ascending.
///
/// The sample is the same on every platform: the first `sample` steps of a Fisher-Yates shuffle of the M records at
/// hand, step i (from 0) swapping places i and i + floor(u * (M - i)), u = NumPy's
/// RandomState(sample_seed).random_sample(). So a larger sample of the same seed holds the smaller one.
///
/// Throws Error: an id that no record has (named), a sample or limit below 1.
std::vector<std::size_t> select(const Facts& facts, const Selection& selection);

}  // namespace rometrace
