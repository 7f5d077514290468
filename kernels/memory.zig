//! Memory that outlives a step: read-only file mappings with a guard page, and anonymous regions
//! on small or huge pages. Who maps or allocates also releases, through the same struct. Every
//! allocation of the library is made and counted here.
const std = @import("std");
const builtin = @import("builtin");

pub const page_bytes = std.heap.page_size_min;
const huge_page_bytes = 2 << 20;
const posix = std.posix;

/// A mapped file. The mapping is `bytes` rounded up to pages, plus one guard page of zeroes, so
/// that kernels may load whole vectors at the end of the last tensor. The file stays open for
/// `read`.
pub const MappedFile = extern struct { address: u64 = 0, bytes: u64 = 0, fd: i32 = -1, reserved: u32 = 0 };

pub const MapError = error{ NotFound, AccessDenied, OutOfMemory, Empty, Failed };

pub fn mapFile(path: [*:0]const u8, file: *MappedFile) MapError!void {
    const fd = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true });
    if (fd < 0) return switch (posix.errno(fd)) {
        .NOENT, .NOTDIR => error.NotFound,
        .ACCES, .PERM => error.AccessDenied,
        else => error.Failed,
    };
    errdefer _ = std.c.close(fd);
    const end = std.c.lseek(fd, 0, std.c.SEEK.END);
    if (end < 0) return error.Failed;
    if (end == 0) return error.Empty;
    const bytes: usize = @intCast(end);
    const padded = std.mem.alignForward(usize, bytes, page_bytes) + page_bytes;
    // Reserve file and guard page together, then map the file over the front. From a huge page on,
    // because Linux maps those of the page cache where both sides agree on where they begin.
    const region = try reserveAligned(padded, .{ .READ = true });
    errdefer posix.munmap(region);
    _ = posix.mmap(
        region.ptr,
        bytes,
        .{ .READ = true },
        .{ .TYPE = .SHARED, .FIXED = true },
        fd,
        0,
    ) catch return error.Failed;
    file.* = .{ .address = @intFromPtr(region.ptr), .bytes = bytes, .fd = fd };
}

pub fn unmapFile(file: *MappedFile) void {
    if (file.address == 0) return;
    const padded = std.mem.alignForward(usize, file.bytes, page_bytes) + page_bytes;
    const start: [*]align(page_bytes) u8 = @ptrFromInt(file.address);
    posix.munmap(start[0..padded]);
    _ = std.c.close(file.fd);
    file.* = .{};
}

/// Brings mapped pages in from the page cache at once: 18 GB/s, against 3.5 GB/s by page faults.
/// A kernel without MADV_POPULATE_READ leaves it to the faults. What is not in the page cache yet is
/// read into huge pages where the file system can (ext4 since Linux 6.16, XFS, tmpfs).
pub fn populate(address: u64, bytes: u64) void {
    if (builtin.os.tag != .linux) return;
    const populate_read = 22;
    advise(address, bytes, std.os.linux.MADV.HUGEPAGE);
    advise(address, bytes, populate_read);
}

/// Has pages of a mapped file read into the page cache without making them this process's: what is
/// used of them is mapped by small pages.
pub fn readAhead(address: u64, bytes: u64) void {
    if (builtin.os.tag != .linux) return;
    advise(address, bytes, std.os.linux.MADV.NOHUGEPAGE);
    advise(address, bytes, std.os.linux.MADV.WILLNEED);
}

fn advise(address: u64, bytes: u64, advice: u32) void {
    const start = std.mem.alignBackward(u64, address, page_bytes);
    _ = std.os.linux.madvise(@ptrFromInt(start), address + bytes - start, advice);
}

/// Takes a file's pages out of this process; the page cache keeps them, and a later access maps
/// them again. Whole pages inside the range only.
pub fn discard(address: u64, bytes: u64) void {
    const start = std.mem.alignForward(u64, address, page_bytes);
    const end = std.mem.alignBackward(u64, address + bytes, page_bytes);
    if (end <= start) return;
    const pages: [*]align(page_bytes) u8 = @ptrFromInt(start);
    posix.madvise(pages, end - start, posix.MADV.DONTNEED) catch {};
}

/// Keeps a range in memory from now on. `LockFailed`: more than the process may lock.
pub fn lock(address: u64, bytes: u64) error{LockFailed}!void {
    const start: *const anyopaque = @ptrFromInt(std.mem.alignBackward(u64, address, page_bytes));
    const length = address + bytes - @intFromPtr(start);
    if (mlock(start, length) != 0) return error.LockFailed;
}

extern "c" fn mlock(start: *const anyopaque, length: usize) c_int;

/// One reader's share of a file at a time: long enough for the disk, short enough to share out.
const read_chunk_bytes = 4 << 20;

/// Bytes of a file on their way into memory; read by several threads at once.
const FileRead = struct {
    fd: i32,
    offset: u64,
    target: []u8,
    next_chunk: std.atomic.Value(u64) = .init(0),
    failed: std.atomic.Value(bool) = .init(false),

    fn work(job: *FileRead) void {
        while (!job.failed.load(.monotonic)) {
            const start = job.next_chunk.fetchAdd(1, .monotonic) * read_chunk_bytes;
            if (start >= job.target.len) return;
            const end = @min(start + read_chunk_bytes, job.target.len);
            job.readChunk(start, end) catch job.failed.store(true, .monotonic);
        }
    }

    fn readChunk(job: *FileRead, start: u64, end: u64) error{Failed}!void {
        var at = start;
        while (at < end) {
            const position: i64 = @intCast(job.offset + at);
            const count = std.c.pread(job.fd, job.target.ptr + at, end - at, position);
            if (count < 0 and posix.errno(count) == .INTR) continue;
            if (count <= 0) return error.Failed;
            at += @intCast(count);
        }
    }
};

/// Copies `target.len` bytes from `offset` of the file, with up to `num_threads` threads.
pub fn read(file: *const MappedFile, offset: u64, target: []u8, num_threads: u32) error{Failed}!void {
    if (offset > file.bytes or target.len > file.bytes - offset) return error.Failed;
    var job: FileRead = .{ .fd = file.fd, .offset = offset, .target = target };
    var threads: [16]std.Thread = undefined;
    var spawned: u32 = 0;
    while (spawned + 1 < num_threads and spawned < threads.len) : (spawned += 1) {
        threads[spawned] = std.Thread.spawn(.{ .stack_size = 1 << 18 }, FileRead.work, .{&job}) catch break;
    }
    job.work();
    for (threads[0..spawned]) |thread| thread.join();
    if (job.failed.load(.monotonic)) return error.Failed;
}

/// `huge`: the region starts at a huge page and asks for them, and its first use takes each as a
/// whole. `small`: memory is taken by 4 KiB as it is used.
pub const Pages = enum(u32) { small = 0, huge = 1 };

/// What `allocate` takes for a wish of `bytes`.
pub fn allocatedBytes(bytes: u64) u64 {
    return std.mem.alignForward(u64, @max(bytes, 1), page_bytes);
}

/// Allocations so far, of regions and through `allocator`.
pub var num_allocations: std.atomic.Value(u64) = .init(0);

/// Set on a thread while it runs a step: all memory was taken at load, so wanting more is a bug.
pub threadlocal var in_step: bool = false;

fn noteAllocation() void {
    if (in_step) @panic("a step allocates memory");
    _ = num_allocations.fetchAdd(1, .monotonic);
}

/// Zeroed memory of `allocatedBytes(bytes)`.
pub fn allocate(bytes: u64, pages: Pages) error{OutOfMemory}![]align(page_bytes) u8 {
    noteAllocation();
    const padded = allocatedBytes(bytes);
    const access: Access = .{ .READ = true, .WRITE = true };
    if (builtin.os.tag != .linux or pages == .small or padded < huge_page_bytes) {
        return reserve(padded, access);
    }
    const region = try reserveAligned(padded, access);
    posix.madvise(region.ptr, region.len, posix.MADV.HUGEPAGE) catch {};
    return region;
}

const Access = std.posix.system.PROT;

/// Memory that starts at a huge page.
fn reserveAligned(bytes: u64, access: Access) error{OutOfMemory}![]align(page_bytes) u8 {
    const region = try reserve(bytes + huge_page_bytes, access);
    const start = std.mem.alignForward(usize, @intFromPtr(region.ptr), huge_page_bytes);
    const before = start - @intFromPtr(region.ptr);
    if (before > 0) posix.munmap(region[0..before]);
    const rest: []align(page_bytes) u8 = @alignCast(region[before + bytes ..]);
    if (rest.len > 0) posix.munmap(rest);
    return @alignCast(region[before..][0..bytes]);
}

fn reserve(bytes: u64, access: Access) error{OutOfMemory}![]align(page_bytes) u8 {
    const flags: posix.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    return posix.mmap(null, bytes, access, flags, -1, 0) catch error.OutOfMemory;
}

pub fn release(region: []align(page_bytes) u8) void {
    posix.munmap(region);
}

/// The C allocator, counted. For what lives as long as a loaded plan.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = countedAlloc,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = countedFree,
} };

fn countedAlloc(_: *anyopaque, bytes: usize, alignment: std.mem.Alignment, from: usize) ?[*]u8 {
    noteAllocation();
    return std.heap.c_allocator.rawAlloc(bytes, alignment, from);
}

fn countedFree(_: *anyopaque, region: []u8, alignment: std.mem.Alignment, from: usize) void {
    std.heap.c_allocator.rawFree(region, alignment, from);
}
