#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace rometrace {

/// One of `count` parts of a selection of facts: every count-th fact, from the index-th on. Parts are alike in size to
/// one fact, and which facts a part has depends on nothing but these two numbers.
struct Shard {
  std::int64_t index = 1;  ///< from 1 to count
  std::int64_t count = 1;

  /// Whether the part has the fact at place `order` of the selection, from 1.
  bool holds(std::int64_t order) const { return order >= 1 && (order - 1) % count == index - 1; }

  /// How many of `selected` facts the part has.
  std::int64_t size(std::int64_t selected) const { return selected < index ? 0 : (selected - index) / count + 1; }

  bool operator==(const Shard&) const = default;
};

/// "2/4".
std::string to_string(const Shard& shard);

/// Reads "I/N", 1 <= I <= N, as of `--shard 2/4`. Throws Error.
Shard parse_shard(std::string_view text);

/// A shard, and where it was found: "Open MPI (OMPI_COMM_WORLD_RANK 1 of 4)".
struct ShardFound {
  Shard shard;
  std::string source;
};

/// What the environment has under a name; null if nothing. As std::getenv.
using Environment = std::function<const char*(const char*)>;

/// The part of the process that a launcher started, for `--shard auto`: of the N processes, the one of rank R (from 0)
/// has shard R + 1 of N. The first of these that is there counts:
///  1. torchrun: RANK, WORLD_SIZE, where TORCHELASTIC_RUN_ID is set too
///  2. Open MPI: OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE
///  3. MPICH, Intel MPI and others by PMI: PMI_RANK, PMI_SIZE
///  4. Slurm: SLURM_PROCID, SLURM_NTASKS
///  5. others that set RANK and WORLD_SIZE, as torch.distributed asks them to
/// mpirun and torchrun come before Slurm because a Slurm job, which has Slurm's variables from its first line on,
/// starts them, not they the job. RANK alone comes last because anybody may have set it. PMIx tells no number of
/// processes; its launchers set one of the above. Where the launcher found started one process only, or none did, a
/// Slurm array job counts: SLURM_ARRAY_TASK_ID, with _MIN, _MAX and _COUNT. Its ids must be evenly spaced; if an
/// array is submitted again with some of its ids, its parts are others, so give --shard I/N then. Throws Error: nothing
/// is set, half of a pair is, numbers that make no sense, Slurm's variables in a job's script that srun did not start
/// (each process of it would be the first of SLURM_NTASKS, and the others would not be there).
ShardFound shard_from_environment(const Environment& environment);

/// The rank of a process among those of its machine, and where it was found: "SLURM_LOCALID".
struct LocalRank {
  std::int64_t rank = 0;  ///< from 0
  std::string source;
};

/// That of the process that a launcher started, for `--device cuda`; nothing where none did. The first of these that is
/// there counts, in the order of shard_from_environment():
///  1. torchrun: LOCAL_RANK, where TORCHELASTIC_RUN_ID is set too
///  2. Open MPI: OMPI_COMM_WORLD_LOCAL_RANK
///  3. MPICH and Intel MPI: MPI_LOCALRANKID; MVAPICH: MV2_COMM_WORLD_LOCAL_RANK; Cray's: PMI_LOCAL_RANK
///  4. Slurm: SLURM_LOCALID of what srun started. In a job's script, which has it too, it says nothing.
///  5. others that set LOCAL_RANK, as torch.distributed asks them to
/// Throws Error: one that counts is no number.
std::optional<LocalRank> local_rank_from_environment(const Environment& environment);

}  // namespace rometrace
